"""Real processes under random faults: see README.md."""
