"""Fixtures that every test may use."""

from nats_server import connection, nats

__all__ = ["connection", "nats"]
