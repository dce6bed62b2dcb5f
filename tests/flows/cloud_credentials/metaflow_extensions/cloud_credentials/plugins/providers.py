"""Credentials for the servers of tests: a token of Azure's that the environment has, and none of Google's."""

import os
import time


class AzureToken:
    """Metaflow's protocol of such a provider."""

    name = "from-environment"

    @staticmethod
    def create_cacheable_azure_credential(*_given, **_named):
        return _Token()


class _Token:
    def get_token(self, *_scopes, **_named):
        from azure.core.credentials import AccessToken

        return AccessToken(os.environ["CLOUD_CREDENTIALS_TOKEN"], int(time.time()) + 3600)

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return isinstance(other, _Token)


class GcpAnonymous:
    """Likewise."""

    name = "from-environment"

    @staticmethod
    def get_gs_storage_client(*_given, **_named):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(project="test-project", credentials=AnonymousCredentials())

    @staticmethod
    def get_credentials(_scopes, *_given, **_named):
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials(), "test-project"
