"""What administrators do to a store: verify, repair, collect garbage. Plans are apart from what carries them out."""
