"""Fixtures of the attacks."""

from arena import arena, surroundings

__all__ = ["arena", "surroundings"]
