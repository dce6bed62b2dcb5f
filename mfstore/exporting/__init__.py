"""What is stored, written as files that others read without mfstore."""
