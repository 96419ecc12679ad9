"""The catalogue: a folder per workload, with its description, its code and its README."""
