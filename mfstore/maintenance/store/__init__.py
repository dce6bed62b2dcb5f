"""Maintenance of a store: verify, repair, collect."""
