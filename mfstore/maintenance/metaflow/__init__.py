"""Maintenance of Metaflow's datastore roots: verify, repair, collect, migrate."""
