"""The bulk client: many objects at once, an outcome for each."""
