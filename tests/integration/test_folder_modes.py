"""Whatever the umask: nobody else writes to the folders that our programs make, nor above them."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_parts import ALICE

from deploy.local.fleet import ORDINARY_USER, command, wait_until
from lender.service.places import make_folder

WITHIN_S = 40.0


def writable(folder: Path) -> Iterator[str]:
    """What others can write to, of all that they can reach."""
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if mode & 0o022 and not stat.S_ISSOCK(mode) and not stat.S_ISLNK(mode):
            yield f"{path}: {stat.S_IMODE(mode):o}"
        if stat.S_ISDIR(mode) and mode & 0o011:
            yield from writable(path)


COMMANDS = {
    "init": ("lender-broker", "init", "--state", "a/b/c"),
    "allow": ("lender-broker", "allow", "alice", ALICE.public_key, "--state", "a/b/c"),
    "keygen": ("lender", "keygen", "--key", "a/b/c/submitter.nk"),
}
PROGRAMS = {
    "lenderd": (("lenderd", "--state", "a/b/c"), "a/b/c/control.sock"),
    "broker": (
        ("lender-broker", "serve", "--embedded", "--state", "a/b/c"),
        "a/b/c/nats/nats.conf",
    ),
}


@pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS)
def test_what_a_command_makes_is_written_by_nobody_else(
    tmp_path: Path, argv: tuple[str, ...]
) -> None:
    said = subprocess.run(
        [command(argv[0]), *argv[1:]], cwd=tmp_path, umask=0, capture_output=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert list(writable(tmp_path)) == []
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700


@pytest.mark.parametrize(("argv", "made"), PROGRAMS.values(), ids=PROGRAMS)
def test_what_a_program_makes_is_written_by_nobody_else(
    open_folder: Path, argv: tuple[str, ...], made: str
) -> None:
    env = {**os.environ, **({"LENDERD_USER": ORDINARY_USER} if os.getuid() == 0 else {})}
    log = open_folder / "log"
    with log.open("w") as out:
        running = subprocess.Popen(
            [command(argv[0]), *argv[1:]], cwd=open_folder, env=env, umask=0, stdout=out, stderr=out
        )
    try:
        wait_until((open_folder / made).exists, log.read_text() or made, WITHIN_S)
        assert list(writable(open_folder)) == []
    finally:
        running.terminate()
        running.wait(WITHIN_S)


def test_a_folder_that_is_there_stays_as_it_is_and_no_file_is_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir(0o750)
    make_folder("there/")
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o750
    make_folder(tmp_path / "there" / "x" / "y")
    assert stat.S_IMODE((tmp_path / "there" / "x" / "y").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    for place in ("file", "file/x", "/proc/nobody/makes/this"):
        with pytest.raises(OSError, match=r"file|proc"):
            make_folder(place)
    with pytest.raises(FileNotFoundError):
        make_folder("")
