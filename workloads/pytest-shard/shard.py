"""Runs one task's share of a test suite by pytest: of its files, those whose turn it is.

Whose a file is follows from its path alone, so that lenders with other versions of pytest, and a
later retry, share out alike. Runs by the lending machine's Python, 3.9 or later, and pytest 7.
"""

import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUITE = Path("suite").resolve()
NO_TESTS, NOT_FOUND = 5, 127  # exit codes of pytest, and of shells


class Shard:
    """A plugin that leaves out the files of others, before they are imported."""

    def __init__(self, task: int, count: int) -> None:
        """Know whose turn comes when.

        Args:
            task: index of this share.
            count: how many there are.
        """
        self._task = task
        self._count = count
        names = (one for pattern in ("test*.py", "*_test.py") for one in SUITE.rglob(pattern))
        paths = sorted({one.relative_to(SUITE).as_posix() for one in names})
        self._turns = {path: turn for turn, path in enumerate(paths)}
        self.seen = 0

    def is_ours(self, path: Path) -> bool:
        """Tell whether a file is this task's; one that is called unlike most goes by lot."""
        name = path.relative_to(SUITE).as_posix()
        turn = self._turns.get(name, zlib.crc32(name.encode()))
        return turn % self._count == self._task


def main(options: list[str]) -> int:
    """Unpack, and run pytest with these options in the suite's folder; returns its exit code."""
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive("suite.tar", str(SUITE), "tar", **safely)
    sys.path[:0] = [str(SUITE), str(SUITE / ".deps")]
    try:
        import pytest  # noqa: PLC0415 - the suite may bring it
    except ImportError as error:
        mend = "pip install --target .deps pytest in the suite's folder"
        print(f"pytest can't be imported here ({error}): {mend}", file=sys.stderr)
        return NOT_FOUND

    class Plugin(Shard):
        """With pytest's own marks."""

        @pytest.hookimpl(hookwrapper=True)
        def pytest_collect_file(self, file_path: Path) -> Iterator[None]:
            """Count what pytest takes for a file of tests, and keep ours."""
            outcome: Any = yield
            if outcome.get_result():
                self.seen += 1
                if not self.is_ours(file_path):
                    outcome.force_result([])

    shard = Plugin(int(os.environ["LENDER_TASK"]), int(os.environ["LENDER_TASK_COUNT"]))
    os.chdir(SUITE)
    code = int(pytest.main(options, plugins=[shard]))
    # A share may well be empty; a suite may not.
    return 0 if code == NO_TESTS and shard.seen else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
