"""Which work goes to the machines next: groups of jobs, lenders with room, and whose turn it is."""
