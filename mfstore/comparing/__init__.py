"""What differs between two things that are stored: planned from their recipes and their symbols, and only what may
differ is read."""
