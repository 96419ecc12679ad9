"""Tries what everybody may do on a real server, and prints it: `make permissions`."""
