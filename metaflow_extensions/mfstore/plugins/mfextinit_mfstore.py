"""mfstore's storage classes take the place of Metaflow's ``s3`` and ``local``."""

DATASTORES_DESC = [("s3", ".storages.S3Storage"), ("local", ".storages.LocalStorage")]
