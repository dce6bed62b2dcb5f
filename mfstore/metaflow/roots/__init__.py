"""Where a datastore root keeps what, and what its documents say. Without I/O."""
