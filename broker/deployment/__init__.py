"""Makes what a fleet is let in by: keys, signed identities, certificates, a server's settings."""
