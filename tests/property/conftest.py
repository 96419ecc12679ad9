"""How long a property may be tried: hundreds of examples, under coverage, on a busy machine."""

from pathlib import Path

import pytest

LIMIT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called with the tests of all folders."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(LIMIT_S))
