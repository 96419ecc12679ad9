"""The one way out of a sandbox that has a network: a proxy beside it, which judges and counts."""
