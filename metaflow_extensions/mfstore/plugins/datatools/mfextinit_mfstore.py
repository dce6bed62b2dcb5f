"""``metaflow.S3``, which IncludeFile uses too, under each name that leads to it."""

from ...switch import load

_s3 = load("mfstore.metaflow.needs")


def _lead_to(made):
    """Metaflow gives what is defined here to ``metaflow`` and ``metaflow.plugins.datatools``. Others import the class
    from where it is written, as Metaflow's own S3 storage and other extensions do, some of which were loaded before.
    There Metaflow's stays, as ``StockS3``."""
    import sys

    written = sys.modules["metaflow.plugins.datatools.s3.s3"]
    stock = written.S3
    if stock is made:
        return
    for name, module in list(sys.modules.items()):
        known = getattr(module, "__dict__", {})
        if name.startswith(("metaflow.", "metaflow_extensions.")) and known.get("S3") is stock:
            known["S3"] = made
    written.StockS3 = sys.modules["metaflow.plugins.datatools.s3"].StockS3 = stock


if _s3 is not None:
    S3 = _s3.S3
    _lead_to(S3)
del load, _lead_to
