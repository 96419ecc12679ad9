"""Machines lend what they do not use; their owners stay sovereign."""
