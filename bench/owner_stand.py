"""A lenderd without a fleet for bench/owner: its launcher, cgroups, records and control socket.

Started like lenderd, and as root it becomes an ordinary user in the same order. Besides pause,
resume and reload its socket takes `work` {workload}: one sandbox whose only task is started, and
`busy` {on}: its event loop has more messages to take apart than it can.

    python bench/owner_stand.py STATE SWEEP
"""

import asyncio
import os
import pwd
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import wasmtime

from lender.core.consent import Grant
from lender.daemon.control import ControlServer, Peer
from lender.daemon.privilege import become
from lender.protocol.signature import Signer, seed_from_entropy
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, SandboxPlan
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import stopping, subtree
from lender.sandbox.processes.tree import Root
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.folder import StateFolder, write_pid
from lender.state.grant_writing import write_grant
from lender.state.intent_file import read_stored

ORDINARY_USER = "nobody"
SUBMITTER = Signer(seed_from_entropy(b"b" * 32)).public_key
_SPIN = "while :; do :; done"
_FORKS = "while :; do (:); done"
WORKLOADS = {
    "one": ("process", _SPIN, 4),
    "hundred": ("process", f"i=0; while [ $((i+=1)) -lt 100 ]; do ({_SPIN}) & done; {_SPIN}", 103),
    "forks": ("process", f"i=0; while [ $((i+=1)) -lt 500 ]; do ({_FORKS}) & done; {_FORKS}", 503),
    "hostile": (
        "process",
        f"trap '' TERM; (setsid sh -c \"trap '' TERM; ({_SPIN}) & {_SPIN}\" &); {_SPIN}",
        6,
    ),
    "wasm": (
        "wasm",
        '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))',
        1,
    ),
}
"""Name -> runtime, program, processes that stand when all of it runs (supervisor and walls too)."""

_LIMITS = Limits(
    cpu=1,
    memory_bytes=1 << 30,
    time_s=3600,
    output_bytes=1 << 16,
    scratch_bytes=1 << 20,
    processes=1200,
)


class Stand:
    """One sandbox at a time, started by word and stopped as lenderd stops it."""

    def __init__(
        self, state: StateFolder, launcher: Launcher, cgroups: subtree.Subtree | None
    ) -> None:
        self.state, self.launcher, self.cgroups = state, launcher, cgroups
        self.records = AttemptRecords(state.attempts)
        self.sandbox: LeaseSandbox | None = None
        self.task: asyncio.Task[None] | None = None
        self.flood: asyncio.Task[None] | None = None
        self.number = 0
        self.module = bytes(wasmtime.wat2wasm(WORKLOADS["wasm"][1]))

    def work(self, request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        """Start one sandbox under a grant of its own; the answer does not wait for it."""
        self.task = asyncio.create_task(self._work(str(request["workload"])))
        return {}

    async def _work(self, workload: str) -> None:
        if self.sandbox is not None:
            await self.sandbox.close()
        runtime, program, _ = WORKLOADS[workload]
        self.number += 1
        lease = f"L-{os.getpid()}-{self.number}"
        scratch = self.state.scratch / lease
        scratch.mkdir(mode=0o700)
        # An owner has a handful of grants, not one for each run.
        for old in (*self.state.grants.iterdir(), *self.state.tombstones.iterdir()):
            old.unlink()
        grant, now = f"G-{os.getpid() % 10000:04}{self.number:04}", time.time()
        agreed = Grant(grant, SUBMITTER, "command", None, 1, 1 << 30, now + 3600, now)
        write_grant(self.state, agreed, "shown", "bench")
        module = self.state.path / "program.wasm"
        module.write_bytes(self.module)
        plan = SandboxPlan(
            lease=lease,
            runtime="wasm" if runtime == "wasm" else "process",
            job="bench",
            task_count=1,
            program=module if runtime == "wasm" else None,
            argv=() if runtime == "wasm" else ("sh", "-c", program),
            env={},
            inputs={},
            outputs=(),
            limits=_LIMITS,
            scratch=scratch,
        )

        async def record(roots: tuple[Root, ...]) -> None:
            leaf = self.cgroups.leaf(lease) if self.cgroups else None
            self.records.write(
                AttemptRecord(
                    lease,
                    "bench",
                    SUBMITTER,
                    "command",
                    grant,
                    roots,
                    str(scratch),
                    leaf and str(leaf),
                )
            )

        tombstone = self.state.tombstone(grant)
        self.sandbox = LeaseSandbox(plan, self.launcher, record, (tombstone,), self.cgroups)
        try:
            await self.sandbox.prepare()
            await self.sandbox.run(0)
        except SandboxGoneError:
            pass  # revoked
        finally:
            self.records.remove(lease)

    def busy(self, request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        """Keep the event loop as busy as messages can, or no longer."""
        if self.flood is not None:
            self.flood.cancel()
        self.flood = asyncio.create_task(_flood()) if request["on"] else None
        return {}

    def pause(self, _request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        """Freeze, as lenderd does beside the verb."""
        report = stopping.freeze(self.records.read_all().records)
        return {"report": {**report._asdict(), "jobs": 1}}

    def resume(self, _request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        """Let it go on, if the owner's last word says so."""
        if not read_stored(self.state).paused:
            stopping.thaw(self.records.read_all().records)
        return {}

    def reload(self, _request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        """Kill what the owner no longer allows; there is one grant, and it is gone."""
        stopping.kill(self.records.read_all().records)
        return {}


async def _flood() -> None:
    """Messages of a lease's results without end, as much as lenderd takes at once."""
    message = {"lease": "L", "results": [{"task": n, "value": b"x" * 100} for n in range(100)]}
    while True:
        for _ in range(20):
            msgpack.unpackb(msgpack.packb(message))
        await asyncio.sleep(0)


async def main(path: Path, *, sweep: bool) -> None:
    """Serve until this process is ended."""
    user = pwd.getpwnam(ORDINARY_USER)
    ids = (user.pw_uid, user.pw_gid) if os.geteuid() == 0 else None
    launcher = await Launcher.start(drop_to=ids, preload=("wasm", "process"))
    state = StateFolder(path)
    cgroups = None if sweep else subtree.claim(path, launcher.pid, ids)
    if not sweep and cgroups is None:
        print("no cgroup here: process trees are swept", file=sys.stderr)
    await asyncio.to_thread(bool)  # loads what the interpreter may keep where only root reads
    if ids is not None:
        become(ids, path)
    state.create()
    stand = Stand(state, launcher, cgroups)
    verbs = ("work", "busy", "pause", "resume", "reload")
    with write_pid(state):
        server = ControlServer(
            state.control_socket, {verb: getattr(stand, verb) for verb in verbs}, state.owner_uid()
        )
        await server.start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sweep=sys.argv[2] == "sweep"))
