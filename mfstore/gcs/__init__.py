"""Google Cloud Storage: what its URLs, settings, credentials, requests and answers are."""
