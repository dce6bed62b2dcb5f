"""Metaflow on mfstore: storage classes, the content-addressed store, and what knows Metaflow's layout.

Where Metaflow is installed it is imported first, whichever module is asked for: it loads its extensions while it is
being imported, and ours would meet a module of this package half made. ``blobs`` and ``layout`` work without it.
"""

from contextlib import suppress

with suppress(Exception):  # not installed, or not configured so that it can be: who needs it will be told
    import metaflow  # noqa: F401
