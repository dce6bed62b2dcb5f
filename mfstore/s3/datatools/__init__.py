"""What replaces ``metaflow.S3``."""
