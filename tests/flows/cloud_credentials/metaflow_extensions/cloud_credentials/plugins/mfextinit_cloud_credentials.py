"""A Metaflow extension that says where credentials come from, as those of companies do."""

AZURE_CLIENT_PROVIDERS_DESC = [("from-environment", ".providers.AzureToken")]
GCP_CLIENT_PROVIDERS_DESC = [("from-environment", ".providers.GcpAnonymous")]
