"""From a recipe back to objects: plan reads, decode into final memory, check digests."""
