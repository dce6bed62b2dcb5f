"""``mfstore bench``: what a place brings, and what it is bound by.

``scenarios`` says what is measured, ``plan`` what that will ask of the place, ``run`` does it in a scratch prefix of
``targets``, ``measure`` turns the rows into numbers, ``verdict`` into advice, ``results`` keeps them, ``report``,
``html`` and ``compare`` show them. The benchmarks of this repository run the same scenarios.
"""
