"""``metaflow mfstore …``."""

from ..switch import load

CMDS_DESC = [("mfstore", ".mfstore_cmd.cli")] if load("mfstore.metaflow.needs") is not None else []
del load
