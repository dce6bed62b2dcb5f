"""Parts of what is stored, loaded alone: handles that read no more than what they are asked for."""
