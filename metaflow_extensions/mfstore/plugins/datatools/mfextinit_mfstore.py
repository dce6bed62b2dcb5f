"""``metaflow.S3``, which IncludeFile uses too, under each name that leads to it."""

from ...switch import load

_s3 = load("mfstore.metaflow.needs")


def _lead_to(made):
    """Metaflow gives what is defined here to ``metaflow`` and ``metaflow.plugins.datatools``. Others import the class
    from where it is written, as Metaflow's own S3 storage and other extensions do. There Metaflow's stays, as
    ``StockS3``."""
    import sys

    for name in ("metaflow.plugins.datatools.s3.s3", "metaflow.plugins.datatools.s3"):
        module = sys.modules.get(name)
        stock = getattr(module, "S3", None)
        if stock not in (None, made):
            module.StockS3, module.S3 = stock, made


if _s3 is not None:
    S3 = _s3.S3
    _lead_to(S3)
del load, _lead_to
