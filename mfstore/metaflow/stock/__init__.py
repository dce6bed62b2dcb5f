"""The stock profile: blobs as every Metaflow reads them."""
