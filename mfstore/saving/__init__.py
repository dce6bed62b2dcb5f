"""From pickled streams to stored packs, fragments and recipes."""
