"""Every attack once more against a daemon that is an ordinary user's: no root, no change of user.

Such a daemon has its sandboxes' own user id, and no cgroup unless somebody delegated one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import USER

TESTS = Path(__file__).parent
ROOT = TESTS.parent.parent


@pytest.mark.skipif(USER is None, reason="this run is an ordinary user's already")
@pytest.mark.timeout(240)
def test_every_attack_fails_for_an_ordinary_user_too() -> None:
    python = _python()
    if python is None:
        pytest.skip(f"uid {USER and USER[0]} can reach no Python {sys.version_info[:2]}")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    names = [path.name for path in sorted(TESTS.glob("test_attack_*.py"))]
    done = subprocess.run(
        [python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
        cwd=TESTS,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join([str(ROOT), *packages])},
        user=USER and USER[0],
        group=USER and USER[1],
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def _python() -> str | None:
    """An interpreter of this very version that an ordinary user can run."""
    wanted = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for found in (sys.executable, shutil.which(wanted, path="/usr/local/bin:/usr/bin")):
        if found is not None and _runs(found):
            return found
    return None


def _runs(python: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "pass"], user=USER and USER[0], check=False, cwd="/", env={}
        )
    except PermissionError:
        return False
    return done.returncode == 0
