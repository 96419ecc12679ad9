"""Whom the operator lets in: requests that wait, join tokens, and who was let in."""
