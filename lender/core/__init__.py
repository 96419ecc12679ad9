"""The daemon's decisions, pure: consent, headroom, leases, attempts. `handle(now, event)`."""
