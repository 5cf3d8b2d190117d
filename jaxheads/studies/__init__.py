"""Studies: one a file, each ``prepare`` (inputs), ``plan`` (cost) and ``run`` (arrays).

No study imports another; ``run`` puts them together into one run folder.
"""
