"""What ``mfstore doctor`` looks at: the parts of an installation, and what is wrong with them.

Nothing of the compiled core and no optional library is imported before its turn comes, so that one that does not load
is a finding, not the end.
"""
