"""Rehearses a revocation: the real code over a real process tree, in a folder of its own."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks.check import Check
from lender.cli.revocation import revoke
from lender.cli.words import count, duration
from lender.core.consent import Grant
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.folder import StateFolder
from lender.state.grant_writing import write_grant
from lender.state.withdrawal import EVERYTHING

_PROCESSES = 9
_READY_S = 5.0
_ACTOR = f"U{'REHEARSAL':A<55}"
# Each in a session of its own, deaf to the polite signal, and says when it is up. They end with who
# rehearses, whose pipe they read. The shell of this machine, no program.
_OTHER_SESSION = "" if sys.platform == "darwin" else "setsid "  # there is no such command
_DEAF = 'trap "" TERM; : > ready.$0; read line <&3'
_TREE = f"""
exec 3<&0
trap '' TERM
for n in $(seq {_PROCESSES - 1}); do {_OTHER_SESSION}sh -c '{_DEAF}' $n & done
: > ready.0
read line
"""


def revocation(left_s: float) -> Iterator[Check]:
    """Rehearse, beside everything of the owner's; `left_s` for its processes to come up."""
    with tempfile.TemporaryDirectory(prefix="lender-rehearsal-") as folder:
        yield _play(Path(folder), min(_READY_S, left_s))


def _play(folder: Path, ready_s: float) -> Check:
    """Play it once below `folder`, which is deleted afterwards by who made it."""
    state = StateFolder(folder / "state")
    state.create()
    now = time.time()
    grant = Grant("G-rehearsal", _ACTOR, "rehearsal", None, 1, 1 << 20, now + 60, now)
    write_grant(state, grant, "a rehearsal")
    scratch = state.scratch / "rehearsal"
    scratch.mkdir()
    actor = subprocess.Popen(
        ["/bin/sh", "-c", _TREE], cwd=scratch, stdin=subprocess.PIPE, start_new_session=True
    )
    root = tree.identify(actor.pid)
    try:
        _await_ready(scratch, ready_s)
        record = AttemptRecord(
            "rehearsal", "rehearsal", _ACTOR, "rehearsal", grant.id, (root,), str(scratch)
        )
        AttemptRecords(state.attempts).write(record)
        outcome = revoke(state, EVERYTHING)
    finally:
        tree.kill([root])
        actor.communicate()
    took_s = outcome.stopped_s if outcome.killed_s is None else outcome.killed_s
    if not outcome.complete or scratch.exists():
        why = outcome.doubt or outcome.not_saved or f"left: {outcome.remaining}"
        text = f"a rehearsed revocation was not complete ({why})"
        return Check("rehearsal", "blocker", text, "report this: revoke must always work")
    text = (
        f"a rehearsed revocation killed {count(outcome.processes, 'process')} "
        f"after {duration(took_s)}, and wiped their scratch"
    )
    return Check("rehearsal", "ok", text)


def _await_ready(scratch: Path, ready_s: float) -> None:
    deadline = time.monotonic() + ready_s
    while len(list(scratch.glob("ready.*"))) < _PROCESSES:
        if time.monotonic() > deadline:
            raise OSError(f"its processes did not start within {ready_s:.1g} s")
        time.sleep(0.005)
