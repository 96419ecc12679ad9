"""Every attack once more against a daemon that is an ordinary user's: no root, no change of user.

Such a daemon has its sandboxes' own user id, and no cgroup unless somebody delegated one.
"""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sandboxes import USER, open_folder

__all__ = ["open_folder"]  # fixtures

ROOT = Path(__file__).parent.parent.parent
ATTACKS = sorted(Path(__file__).parent.glob("test_attack_*.py"))
AS_USER: dict[str, Any] = (
    {} if USER is None else {"user": USER[0], "group": USER[1], "extra_groups": []}
)


LENDER = """\
#!{python}
import sys
from lender.cli.main import main
sys.exit(main())
"""


@pytest.mark.skipif(USER is None, reason="this run is an ordinary user's already")
@pytest.mark.timeout(600)
def test_every_attack_fails_for_an_ordinary_user_too(open_folder: Path) -> None:
    python = _python(open_folder)
    if python is None:
        pytest.skip(f"an ordinary user can run no Python {sys.version_info[:2]} here")
    done = subprocess.run(
        [python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, ATTACKS)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        **AS_USER,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def _python(folder: Path) -> str | None:
    """An interpreter of this version that an ordinary user can run, with all that this one has."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for found in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin")):
        if found is not None and _runs(found, "import sys"):
            # The launcher is isolated from PYTHONPATH, as lenderd's is: it needs an environment.
            made = folder / "venv"
            subprocess.run([found, "-m", "venv", "--without-pip", made], check=True)
            paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
            (made / "lib" / name / "site-packages" / "all.pth").write_text("\n".join(paths))
            python = str(made / "bin" / "python")
            command = made / "bin" / "lender"
            command.write_text(LENDER.format(python=python))
            command.chmod(0o755)
            return python if _runs(python, "import lender, pytest") else None
    return None


def _runs(python: str, program: str) -> bool:
    with contextlib.suppress(PermissionError):
        words = [python, "-B", "-c", program]
        return subprocess.run(words, check=False, cwd="/", env={}, **AS_USER).returncode == 0
    return False
