"""The S3 backend: ``s3://bucket/prefix``."""
