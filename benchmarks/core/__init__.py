"""What is stored of ten versions: ``make bench-core``.

``series`` says what a series is; ``tables``, ``arrays``, ``models``, ``files`` and ``objects`` make them, ``catalogue``
lists them all. ``peers`` are the ways of storing that are compared, ``run`` measures, ``table`` shows.
"""
