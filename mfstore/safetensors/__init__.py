"""The file format safetensors: headers, types, and files as dicts of arrays."""
