"""What verify and repair read of a store, in parts: each knows one kind of object."""
