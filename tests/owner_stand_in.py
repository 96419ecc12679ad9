"""A stand-in lenderd: the real control server and pid file over a core of a few lines.

`owner_stand_in.py STATE BEHAVIOUR`: the behaviour's `launch_on_reload` and `launch_on_pause` name
a grant under which one more attempt is started before the answer, as a launch under way would be;
its `status` and `attempt` replace fields of the status and of each running attempt.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lender.core.consent import Intent
from lender.daemon.control import ControlServer
from lender.daemon.peer import Peer
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.consent_files import load_consent, read_intent, write_intent
from lender.state.folder import StateFolder, write_pid

Answer = dict[str, Any]


class StandIn:
    def __init__(self, state: StateFolder, behaviour: Answer) -> None:
        self.state, self.behaviour = state, behaviour
        self.records = AttemptRecords(state.attempts)

    def status(self, _request: Answer, _peer: Peer) -> Answer:
        reading, now = load_consent(self.state), time.time()
        grants = [
            {
                "id": g.id,
                "submitter": g.submitter,
                "name": reading.names.get(g.submitter, ""),
                "workload": g.workload,
                "not_after": g.not_after,
            }
            for g in reading.consent.valid(now)
        ]
        intent = read_intent(self.state)
        paused = intent.holds(now)
        phase = "paused" if paused else "lending" if grants else "unconsented"
        records = self.records.read_all().records
        return {
            "phase": phase,
            "paused": paused,
            "paused_at": intent.paused_at,
            "paused_until": intent.until,
            "finish_by": intent.finish_by,
            "paused_by": intent.said_by,
            "reason": "",
            "name": "desk-7",
            "connected": True,
            "url": self.behaviour.get("url", "nats://127.0.0.1:1"),
            "slots_total": 2,
            "slots_free": 2 - len(records),
            "running": [
                {
                    "lease": r.lease,
                    "job": r.job,
                    "job_name": "fold\x1b[31m-42",
                    "submitter": r.submitter,
                    "workload": r.workload,
                    "state": "running",
                    "tasks_done": 3,
                    "tasks_total": 8,
                    "since": now - 372,
                    **self.behaviour.get("attempt", {}),
                }
                for r in records
            ],
            "grants": grants,
            "headroom": {"cpu": 2, "memory_bytes": 1 << 30},
            "today": {"jobs": 3, "seconds": 2460},
            "ignored_grants": [],
            "runtimes": {"wasm": {"available": False, "reason": "no wheel", "mend": "64 bit"}},
            **self.behaviour.get("status", {}),
        }

    def pause(self, request: Answer, _peer: Peer) -> Answer:
        intent = Intent(True, **request.get("intent", {"paused_at": time.time()}))
        write_intent(self.state, intent)
        records = self.records.read_all().records
        if intent.finish_by is not None:
            return {"report": {"verified": True, "processes": 0, "jobs": 0, "duration_s": 0.0}}
        report = tree.freeze([root for r in records for root in r.roots])
        if self.behaviour.get("launch_on_pause"):
            self._launch(self.behaviour["launch_on_pause"])
        return {
            "report": {
                "verified": report.verified,
                "processes": report.processes,
                "jobs": len(records),
                "duration_s": report.duration_s,
            }
        }

    def resume(self, _request: Answer, _peer: Peer) -> Answer:
        if not read_intent(self.state).paused:
            tree.thaw([root for r in self.records.read_all().records for root in r.roots])
        return {}

    def reload(self, _request: Answer, _peer: Peer) -> Answer:
        if self.behaviour.get("launch_on_reload"):
            self._launch(self.behaviour["launch_on_reload"])
        return {}

    def _launch(self, grant_id: str) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        scratch = self.state.scratch / "late"
        scratch.mkdir()
        roots = (tree.identify(process.pid),)
        self.records.write(
            AttemptRecord("late", "job-late", "U", "w", grant_id, roots, str(scratch))
        )


async def main() -> None:
    state = StateFolder(Path(sys.argv[1]))
    stand_in = StandIn(state, json.loads(sys.argv[2]))
    handlers = {
        "status": stand_in.status,
        "pause": stand_in.pause,
        "resume": stand_in.resume,
        "reload": stand_in.reload,
    }
    lock = write_pid(state)
    server = ControlServer(state.control_socket, handlers, os.getuid())
    await server.start()
    await asyncio.Event().wait()
    lock.close()


asyncio.run(main())
