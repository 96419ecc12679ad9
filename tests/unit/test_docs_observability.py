"""docs/observability.md lists every metric as the code has it."""

from pathlib import Path

import pytest

from broker.service import metrics as of_broker
from lender.daemon import metrics as of_lenderd
from lender.service.logs import ALWAYS, WHERE_KNOWN
from lender.service.metrics import Metric

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()


def row(metric: Metric) -> str:
    """The line of the table that tells of a metric."""
    label = f"`{metric.label}`: {', '.join(metric.values)}" if metric.label else ""
    return f"| `{metric.exposed}` | {metric.kind} | {metric.help} | {label} |"


@pytest.mark.parametrize(
    "metrics", [of_broker.METRICS, of_lenderd.METRICS], ids=["broker", "lenderd"]
)
def test_the_page_lists_every_metric(metrics: tuple[Metric, ...]) -> None:
    missing = [row(one) for one in metrics if row(one) not in PAGE]
    assert not missing, "\n".join(missing)


def test_the_page_lists_every_key_of_the_log() -> None:
    rows = [line for line in PAGE.partition("## Logs")[2].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{key}` | {what} |" for key, what in {**ALWAYS, **WHERE_KNOWN}.items()]


def test_the_page_lists_nothing_else() -> None:
    known = {row(one) for one in (*of_broker.METRICS, *of_lenderd.METRICS)}
    listed = {line for line in PAGE.splitlines() if line.startswith("| `lender")}
    assert listed == known
