"""Metaflow on mfstore.

* ``hooks``: what takes the place of Metaflow's own classes and methods.
* ``stock`` and ``packed``: the two profiles, in which form artifacts of flows are stored.
* ``roots``: what lies where below a datastore root, and what ``data.json`` says of it. Pure; imports nothing of the
  rooms above.
* ``extension`` and ``needs``: what the files of ``metaflow_extensions`` name.
* ``process_state`` and ``errors``: what hooks and profiles share.

Where Metaflow is installed it is imported first, whichever module is asked for: it loads its extensions while it is
being imported, and ours would meet a module of this package half made. ``roots``, and of ``stock`` all but
``content_store``, work without it.
"""

from contextlib import suppress

with suppress(Exception):  # not installed, or not configured so that it can be: who needs it will be told
    import metaflow  # noqa: F401
