"""Migration between profiles in parts: what is to be changed, converting it, and what came of it."""
