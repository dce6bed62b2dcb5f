"""Garbage collection in parts: what is there and live, what is to be done, and doing it."""
