"""What Azure's Blob Storage is to the engine that moves bytes: URLs, accounts, credentials, requests, answers."""
