"""The trial on macOS: what a sandbox must not reach there, and whether it was seen to.

Written from documentation and not yet run on a Mac.
"""

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lender.sandbox.plan import Runtime, TaskOutcome
from lender.sandbox.processes import tree
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.trials import mac_probe, seen
from lender.sandbox.trials.seen import Seen

PROBE: Final = Path(mac_probe.__file__)
"""Text of a module whose `probe(host)` makes the task of a python job."""

MENDS: Final = {
    "wasmtime": "install wasmtime",
    "as root": "name an ordinary user in the setting `user`",
    "Python is not installed": "install Python where that user can read it",
}
NETWORKED: Final[frozenset[Runtime]] = frozenset()
"""No namespace holds a socket for a proxy there."""
_SHORT = "/tmp"  # noqa: S108 - where a socket has a name that is short enough
_ENVIRONMENT = (
    *("HOME", "LENDER_JOB", "LENDER_TASK", "LENDER_TASK_COUNT", "PATH", "TMPDIR"),
    # What shells and the system's libraries set by themselves.
    *("OLDPWD", "PWD", "SHLVL", "_", "__CF_USER_TEXT_ENCODING"),
)
# By a shell's own means: it may start nothing. A redirection of ":" that fails would end it.
_SCRIPT = r"""
wall() { echo "wall $*"; }
trap 'exit 0' EXIT
for place in @folders@; do
    { true > "$place/lender-selftest"; } 2>/dev/null && wall "can write below $place"
done
for file in @files@; do
    { true < "$file"; } 2>/dev/null && wall "can read $file"
done
{ true 3<> /dev/tcp/127.0.0.1/@port@; } 2>/dev/null && wall "reaches the host's loopback"
kill -0 @pid@ 2>/dev/null && wall "can signal lenderd"
{ true > here; } 2>/dev/null || wall "can't write its working folder"
export -p
echo seen
child=$(echo started) 2>/dev/null
[ -z "$child" ] || echo "$child"
"""
_NAME = re.compile(r"^(?:export|declare -x) (\w+)", re.MULTILINE)


@contextlib.contextmanager
def host() -> Iterator[dict[str, Any]]:
    """What no sandbox may reach, and what it may see, for `mac_probe`."""
    with (
        tempfile.TemporaryDirectory(prefix="lender-", dir=_SHORT) as name,
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.write_text("the owner's")
        unix.bind(f"{name}/s")
        (folder / "s").chmod(0o666)
        unix.listen(1)
        yield {
            "port": loopback.getsockname()[1],
            "unix": f"{name}/s",
            "files": [str(secret), *mac_probe.FILES],
            "pid": os.getpid(),
            "environment": _ENVIRONMENT,
            "forks": tree.is_enclosed(),
        }


def command(host: dict[str, Any]) -> tuple[str, ...]:
    """What runs where a job is a command."""
    script = _SCRIPT.replace("@folders@", " ".join(mac_probe.FOLDERS))
    script = script.replace("@files@", " ".join(host["files"]))
    script = script.replace("@port@", str(host["port"])).replace("@pid@", str(host["pid"]))
    return "sh", "-c", script


def see(runtime: Runtime, outcome: TaskOutcome, host: dict[str, Any]) -> Seen:
    """What a task that has succeeded shows of its walls.

    Raises:
        ValueError, LookupError, TypeError: it does not say what it was asked.
    """
    if runtime == "wasm":
        return Seen(seen.of_module(outcome), entered=False)
    return seen.of_probe(outcome) if runtime == "python" else _of_script(outcome, host)


def notes(runtime: Runtime, _keeps: frozenset[Kept], *, entered: bool) -> Iterator[str]:  # noqa: ARG001 - of Linux
    """What it does less well here than it could, for the owner to read."""
    yield "cores are kept by admission alone: macOS limits them for nobody"
    yield "disk is watched, not limited: it may be over its limit for a moment"
    if runtime == "wasm":
        yield "no second wall around its process"
        return
    yield "memory is watched, not limited: it may be over its limit for a moment"
    yield "no second wall: the sandbox profile is the only one"
    yield "tries to reach a network are refused, and not counted"
    if tree.is_enclosed():
        yield "processes are limited together with all others of lenderd's account"
    else:
        yield (
            "a task can't start processes: lenderd has no account of its own to find them by "
            "(settings `user` and `user_is_dedicated`)"
        )


def _of_script(outcome: TaskOutcome, host: dict[str, Any]) -> Seen:
    text = outcome.value.decode(errors="replace")
    lines = text.splitlines()
    walls = [line.removeprefix("wall ") for line in lines if line.startswith("wall ")]
    names = set(_NAME.findall(text))
    walls += [f"shows {name} of an environment" for name in sorted(names - {*_ENVIRONMENT})]
    if "started" in lines and not host["forks"]:
        walls.append("can start processes")
    if "seen" not in lines or not names:
        walls.append("its walls can't be seen")
    return Seen(walls, entered=False)
