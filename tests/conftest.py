"""Fixtures that every test may use."""

from fleet import fleet, fleet_folder
from nats_server import connection, nats

__all__ = ["connection", "fleet", "fleet_folder", "nats"]
