"""The control plane: what botocore knows, turned into values for the engines."""
