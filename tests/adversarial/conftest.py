"""Fixtures of the attacks, and what is shown of one that came to something."""

from collections.abc import Generator
from pathlib import Path

import pytest
from arena import Arena, arena, surroundings

from lender.client.keys import create_key

__all__ = ["arena", "surroundings"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show beside a failure all that was tried: the assertion's own words are cut."""
    report = yield
    tried_in = getattr(item, "funcargs", {}).get("arena")
    if report.failed and isinstance(tried_in, Arena):
        report.sections.append(("what was tried", tried_in.told()))
    return report


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A submitter's."""
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path
