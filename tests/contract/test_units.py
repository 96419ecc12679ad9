"""What systemd itself says of the shipped units, with the programs of this installation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lender.cli.install import UNITS
from lender.cli.installing import templates

PROGRAMS = {
    name: str(Path(sys.executable).with_name(name))
    for name in ("lender", "lenderd", "lender-broker")
}
KINDS = ("user", "system")

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze (package systemd) is missing"
)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """All units as they are written on a machine, by kind."""
    made = {}
    for kind in KINDS:
        made[kind] = tmp_path / kind
        made[kind].mkdir()
        for shipped in (*(UNITS / "systemd" / kind).iterdir(), UNITS / "systemd/lender.slice"):
            text = templates.marked(templates.unit(shipped.read_text(), PROGRAMS))
            (made[kind] / shipped.name).write_text(text)
    return made


def analyze(*arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@needs_analyze
@pytest.mark.parametrize("kind", KINDS)
def test_systemd_has_nothing_to_say_against_them(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """What it does not know it only warns of, with rc 0; others' units may have faults."""
    units = sorted(map(str, folders[kind].iterdir()))
    done = analyze("verify", f"--{kind}", "--man=no", *units, tmp_path=tmp_path)
    assert (done.returncode, [one for one in done.stderr.splitlines() if "lend" in one]) == (0, [])


@needs_analyze
@pytest.mark.parametrize(
    ("unit", "exposure_max"),
    [
        *(("system/lenderd", 3.8), ("system/lender-broker", 1.3)),
        *(("user/lenderd", 7.4), ("user/lender-broker", 6.4), ("user/lender-agent", 5.9)),
    ],
)
def test_they_give_away_no_more_than_sandboxes_need(
    folders: dict[str, Path], tmp_path: Path, unit: str, exposure_max: float
) -> None:
    """By systemd's own count, 0 to 10. A user's unit can't have most of what counts."""
    kind, name = unit.split("/")
    options = ("--offline=true", f"--threshold={exposure_max * 10:.0f}")
    done = analyze("security", *options, f"{folders[kind] / name}.service", tmp_path=tmp_path)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
