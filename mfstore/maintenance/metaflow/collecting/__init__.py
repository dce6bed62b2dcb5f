"""Garbage collection of a Metaflow root in parts: which runs go, what they and the others need, and removing it."""
