"""What takes the place of Metaflow's own classes and methods."""
