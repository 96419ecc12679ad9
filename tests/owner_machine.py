"""An owner's machine for tests: a state folder, running attempts, a stand-in lenderd, `lender`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.guard import Guard
from lender.core.consent import Grant
from lender.daemon.control_client import UnreachableError, ask
from lender.protocol.signature import Signer, seed_from_entropy
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.folder import StateFolder
from lender.state.grant_writing import write_grant

LENDER = Path(sys.executable).with_name("lender")
STAND_IN = Path(__file__).with_name("owner_stand_in.py")
ALICE = Signer(seed_from_entropy(b"a" * 32)).public_key
BOB = Signer(seed_from_entropy(b"b" * 32)).public_key
TERMS = AttemptTerms(0.0, 2, 10_000, "ab" * 32, (("in.npz", "cd" * 32),))

# Ignores TERM, leaves its session, forks twice, keeps a few children busy forking.
HOSTILE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1] + "/ready", "w").close()
        while True:
            time.sleep(0.001)
            if os.fork() == 0:
                time.sleep(0.02)
                os._exit(0)
            with __import__("contextlib").suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
while True:
    time.sleep(1)
"""


STRANGER_UID = 65534

BOUND_S = 90.0
"""What a verb or a process may take on a machine whose processor others have."""

# The interpreter may lie where only root can read: everything is loaded before the change.
AS_STRANGER = f"""
import importlib, os, sys
from lender.cli.main import main
names = "status why top pause resume drain grant grants revoke log doctor preflight parsing moments"
for name in names.split():
    importlib.import_module("lender.cli." + name)
os.setgroups([])
os.setresgid({STRANGER_UID}, {STRANGER_UID}, {STRANGER_UID})
os.setresuid({STRANGER_UID}, {STRANGER_UID}, {STRANGER_UID})
sys.exit(main([sys.argv[3], *sys.argv[1:3], *sys.argv[4:]]))
"""


def until(condition: Callable[[], object], what: str, timeout_s: float = BOUND_S) -> None:
    """Wait for a condition, with a bound."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


def grant(
    state: StateFolder,
    grant_id: str,
    submitter: str = ALICE,
    workload: str = "render",
    not_after: float = 0.0,
) -> Grant:
    """An hour's consent, as `lender grant` would write it."""
    now = time.time()
    end = not_after or now + 3600
    agreed = Grant(grant_id, submitter, workload, None, 2, 1 << 30, end, now)
    write_grant(state, agreed, "shown", {ALICE: "alice", BOB: "bob"}[submitter])
    return agreed


GUARD = Guard()
"""Ends what is left where the tests are killed."""


class Machine:
    """One state folder and whatever a test starts around it."""

    def __init__(self, path: Path) -> None:
        self.state = StateFolder(path)
        self.state.create()
        self._started: list[subprocess.Popen[bytes]] = []

    def lender(
        self,
        *arguments: str,
        **more: Any,  # noqa: ANN401 - goes to subprocess.run
    ) -> subprocess.CompletedProcess[str]:
        """Run the real command."""
        environment = {**os.environ, "LENDER_STATE": str(self.state.path)}
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        return subprocess.run(
            [str(LENDER), *arguments],
            env=environment,
            text=True,
            check=False,
            **{"stdin": subprocess.DEVNULL, "timeout": BOUND_S, **pipes, **more},
        )

    def lender_as_stranger(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a user who owns nothing here; becoming one needs root."""
        if os.geteuid() != 0:
            pytest.skip("becoming another user needs root")
        command = [sys.executable, "-c", AS_STRANGER, "--state", str(self.state.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)

    def json(
        self,
        *arguments: str,
        **more: Any,  # noqa: ANN401 - goes to subprocess.run
    ) -> tuple[int, dict[str, Any]]:
        """Run the real command with --json."""
        done = self.lender(*arguments, "--json", **more)
        return done.returncode, json.loads(done.stdout or done.stderr)

    def daemon(self, **behaviour: object) -> subprocess.Popen[bytes]:
        """Start the stand-in lenderd and wait until it listens."""
        self.state.control_socket.unlink(missing_ok=True)
        process = self._start(
            [sys.executable, str(STAND_IN), str(self.state.path), json.dumps(behaviour)]
        )
        until(self._answers, "the stand-in answers")
        return process

    def tested_daemon(self) -> subprocess.Popen[bytes]:
        """Start one that tells of its sandboxes: `lender doctor` need not try them itself."""
        return self.daemon(status={"runtimes": {"process": {"available": True}}})

    def _answers(self) -> bool:
        try:
            return bool(ask(self.state.control_socket, {"verb": "status"}, 1.0)["ok"])
        except UnreachableError:
            return False

    def attempt(self, lease: str, grant: Grant) -> AttemptRecord:
        """A hostile process tree with a record and a scratch folder."""
        scratch = self.state.scratch / lease
        scratch.mkdir()
        (scratch / "kept.bin").write_bytes(b"x" * 100_000)
        root = tree.identify(self._start([sys.executable, "-c", HOSTILE, str(scratch)]).pid)
        until((scratch / "ready").exists, "the tree stands")
        record = AttemptRecord(
            lease, f"job-{lease}", grant.submitter, grant.workload, grant.id, (root,), str(scratch)
        )._replace(terms=TERMS._replace(started_at=time.time() - 10))
        AttemptRecords(self.state.attempts).write(record)
        return record

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, start_new_session=True)
        GUARD.watch(process.pid)
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what was started; hostile trees are found by their records' roots."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
                tree.kill([tree.identify(process.pid)])
            process.wait(10)


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    """A machine whose owner has said nothing yet."""
    made = Machine(open_folder / "state")
    yield made
    made.close()
