"""What the shell is told of a task's end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from broker_world import START

from lender.cli.delivery import deliver_task
from lender.protocol.result import TaskResult, Terminal


@pytest.mark.parametrize(
    ("code", "seen"), [(1, 1), (255, 255), (None, 1), (0, 1), (256, 1), (-1, 1), (1 << 63, 1)]
)
async def test_no_exit_code_of_a_failed_task_reads_as_success(
    code: int | None, seen: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def value(_: TaskResult) -> bytes:
        return b""

    async def download(*_: object) -> list[Path]:
        return []

    job: Any = SimpleNamespace(id="job-0001", value=value, download=download)
    result = TaskResult(task=0, state="failed", exit_code=code)
    end = Terminal(job="job-0001", state="failed", result=result, finished_at=START)
    assert await deliver_task(job, end, Path(), as_json=True, raw=False) == seen
    assert "failed" in capsys.readouterr().err
