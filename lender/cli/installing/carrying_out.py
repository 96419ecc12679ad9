"""Carries a plan out, step by step, and says so."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lender.cli.exits import CommandError, Exit
from lender.cli.installing.plan import Plan, Remove, Run, Step, Wipe, Write, draft, told
from lender.cli.state_choice import serves
from lender.cli.words import printable
from lender.sandbox.files import scratch
from lender.state.folder import StateFolder

_RUN_S = 400.0
"""Longer than units may take to start."""
_AGAIN_S = 0.5


def carry_out(plan: Plan, say: Callable[[str], None]) -> None:
    """Do all of it in order.

    Args:
        plan: what.
        say: told of each step that was done.

    Raises:
        CommandError: a step failed; the earlier ones stand, and running it again goes on.
    """
    for step in plan.steps:
        try:
            _do(step)
        except OSError as error:
            raise CommandError(Exit.FAILED, f"could not {told(step)}: {error}") from error
        say(f"✓ {told(step)}")


def _do(step: Step) -> None:
    match step:
        case Write(path, content, kept):
            _write(path, content, kept)
        case Remove(path, kept):
            if kept is None:
                path.unlink(missing_ok=True)
            else:
                path.replace(kept)
        case Run(command, may_fail, within_s):
            _run(command, may_fail=may_fail, within_s=within_s)
        case Wipe(path):
            _wipe(path)


def _write(path: Path, content: str, kept: Path | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a half unit would be what starts at boot.
    with draft(path).open("w") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if kept is not None:
        path.replace(kept)
    draft(path).replace(path)


def _run(command: tuple[str, ...], *, may_fail: bool, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while (done := _ended(command)).returncode and not may_fail:
        if time.monotonic() >= deadline:
            said = [(done.stderr or done.stdout).strip(), *_last_words(command)]
            raise CommandError(Exit.FAILED, f"{' '.join(command)}: {' '.join(said)}")
        time.sleep(_AGAIN_S)


def _ended(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(Exit.FAILED, f"{' '.join(command)}: no end after {_RUN_S} s") from error


def _last_words(command: tuple[str, ...]) -> list[str]:
    """What a service of systemd said as it did not start, which systemctl keeps to itself."""
    if command[0] != "systemctl" or not {"start", "restart"} & {*command}:
        return []
    scope = ("--user",) if "--user" in command else ()
    program = command[-1].removesuffix(".service")
    asked = ("journalctl", *scope, "-q", "-o", "cat", "-n", "1", "-u", command[-1], "-t", program)
    try:
        said = _ended(asked).stdout.strip()
    except OSError:
        return []
    return [f"It said: {printable(said)}"] if said else []


def _wipe(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        return
    if serves(StateFolder(path)):
        raise CommandError(Exit.FAILED, f"{path} stays: a lenderd still serves it")
    scratch.remove(path)
