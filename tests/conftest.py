"""Fixtures that every test may use, and how patient all of them are."""

import signal
from pathlib import Path

import hypothesis
import pytest
from fleet import fleet, open_folder
from nats_server import connection, nats

__all__ = ["connection", "fleet", "nats", "open_folder"]

LIMITS_S = {"acceptance": 240, "adversarial": 120, "contract": 120, "integration": 180} | {
    "permissions": 120,
    "property": 300,  # hundreds of examples, under coverage
}
"""By folder, where a test names none: others may have the machine's processors, and its disk."""

# How long an example takes, and how fast they are made, is the machine's affair, which may be busy.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# A shell has what runs in its background ignore Ctrl-C, and so would everything that we start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the limits."""
    here = Path(__file__).parent
    for item in items:
        limit_s = LIMITS_S.get(item.path.relative_to(here).parts[0])
        if limit_s is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(limit_s))
