"""joblib's own tests of `Parallel`, from its wheel, with `lender` in place of its processes.

Those that name no backend, or `threading` or `sequential` alone, say nothing of ours and are left
out, and these:
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import joblib.test
import pytest

from deploy.local.fleet import Fleet

pytestmark = pytest.mark.timeout(900)

_JOBLIB = "what runs on a lender calls joblib there, which lenders don't have"
_MANAGER = "what runs on a lender talks to a process of this machine (multiprocessing.Manager)"
LEFT_OUT: Final = {
    "test_nested_loop": _JOBLIB,
    "test_nested_backend_context_manager": _JOBLIB,
    "test_backend_nesting_level": _JOBLIB,
    "test_nested_parallelism_limit": _JOBLIB,
    "test_thread_bomb_mitigation": _JOBLIB,
    "test_dispatch_multiprocessing": _MANAGER,
    "test_initializer_context": _MANAGER,
    "test_initializer_parallel": _MANAGER,
}
_HERE = Path(__file__).parent
_FILE = Path(joblib.test.__file__).with_name("test_parallel.py")


def test_what_applies_passes(open_folder: Path) -> None:
    # joblib has the slowest of some calls outlived by the others: that takes several machines.
    with Fleet(open_folder, ("desk", "attic", "den"), workloads=("python",)) as fleet:
        path = [_HERE / "site", _HERE, _HERE.parents[1]]
        ours = {
            "LENDER_URL": fleet.url,
            "LENDER_KEY": str(fleet.key),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
        }
        wanted = " and ".join(["lender", *(f"not {name}" for name in LEFT_OUT)])
        options = ["-q", "-p", "joblib_on_lender", "-p", "no:randomly", "-c", os.devnull]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "-k", wanted, "-rs", str(_FILE)],
            env={**os.environ, **ours},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    print(done.stdout)  # noqa: T201 - `make test-suites` shows it
    assert done.returncode == 0
