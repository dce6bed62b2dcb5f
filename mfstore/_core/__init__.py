"""Native core: see src/. Nothing here is public."""
