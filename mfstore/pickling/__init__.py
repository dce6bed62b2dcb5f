"""Objects to a stream with its segments, and back."""
