"""mfstore's storage classes take the place of Metaflow's own."""

DATASTORES_DESC = [
    ("s3", ".storages.S3Storage"),
    ("azure", ".storages.AzureStorage"),
    ("gs", ".storages.GSStorage"),
    ("local", ".storages.LocalStorage"),
]
