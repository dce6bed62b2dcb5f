"""What moves bytes between memory and S3."""
