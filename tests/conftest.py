"""Fixtures that every test may use, and how patient all of them are."""

import hypothesis
from fleet import fleet, fleet_folder
from nats_server import connection, nats

__all__ = ["connection", "fleet", "fleet_folder", "nats"]

# How long an example takes, and how fast they are made, is the machine's affair, which may be busy.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
