"""Trees: directories as artifacts, stored, restored, and read without restoring."""
