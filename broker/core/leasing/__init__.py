"""Tasks go out as leases, are held, reported on, and come back."""
