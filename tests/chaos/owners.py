"""What owners said, when, and with which answer: what receipts are held against."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.local.fleet import Lender
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

WORKLOAD = "command"
_TRIES = 3
_UNHEARD_S = 5.0
"""For a lenderd that gave no answer to hear of a word that was saved; the verb said so."""

_CLOCK_S = 0.5
"""Between the moment that a receipt names and the one at which a verb returned."""


@dataclass(slots=True)
class Granted:
    """A grant: it may have held from `asked_at` on, and until `ended_at` at most."""

    submitter: str
    asked_at: float
    ended_at: float = math.inf


@dataclass(slots=True)
class Owner:
    """The owner of one machine, who speaks through the real command.

    Attributes:
        grants: by id.
        closed: from when to when nothing may have begun.
        broken: promises that a verb itself did not keep.
    """

    lender: Lender
    keys: Mapping[str, str]
    grants: dict[str, Granted] = field(default_factory=dict)
    closed: list[tuple[float, float]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _closed_at: float | None = None

    async def grant(self, name: str) -> None:
        """Allow a submitter's commands."""
        asked_at = time.time()
        terms = ("--mem", "256M", "--when", "always", "--expires", "1d", "--yes", "--json")
        verb = ("grant", f"{name}={self.keys[name]}", "--workload", WORKLOAD, *terms)
        code, said = await self._say(*verb)
        if code:
            self.broken.append(f"grant: {said}")
            return
        self.grants[json.loads(said)["id"]] = Granted(self.keys[name], asked_at)

    async def revoke(self, name: str) -> None:
        """Withdraw all that a submitter was granted."""
        for _ in range(_TRIES):
            code, said = await self._say("revoke", "--submitter", self.keys[name])
            if not code:
                break
        else:
            self.broken.append(f"revoke: {said}")
            return
        for granted in self.grants.values():
            if granted.submitter == self.keys[name]:
                granted.ended_at = min(granted.ended_at, time.time())

    def trusted(self) -> list[str]:
        """The names of those who hold a grant now."""
        held = {one.submitter for one in self.grants.values() if one.ended_at == math.inf}
        return sorted(name for name, key in self.keys.items() if key in held)

    async def pause(self) -> None:
        await self._close("pause")

    async def drain(self) -> None:
        await self._close("drain", "--deadline", "2s")

    async def resume(self) -> None:
        if self._closed_at is not None:
            self.closed.append((self._closed_at, time.time()))
            self._closed_at = None
        # It says so when lenderd is not there to hear it: what was saved is what counts.
        await self._say("resume")

    def faults(self) -> list[str]:
        """What the receipts tell that the owner had not allowed, in words."""
        log = ReceiptLog(StateFolder(self.lender.state).receipts)
        found = [f"{self.lender.name}: {one}" for one in self.broken]
        for receipt in log.read():
            if "grant" in receipt:
                about = f"{self.lender.name}: lease {receipt['lease']} of job {receipt['job']}"
                found += [f"{about} {fault}" for fault in self._faults(receipt)]
        return found

    def _faults(self, receipt: Mapping[str, object]) -> list[str]:
        found = []
        started_at, ended_at = float(str(receipt["started_at"])), float(str(receipt["ended_at"]))
        granted = self.grants.get(str(receipt["grant"]))
        if granted is None or receipt["workload"] != WORKLOAD:
            return [f"ran under {receipt['grant']}, which nobody granted"]
        if granted.submitter != receipt["submitter"]:
            found.append("ran under another submitter's grant")
        # Of an attempt whose lenderd was killed, the end is when that was found out.
        ran_until = started_at if receipt["outcome"] == "lost" else ended_at
        if not granted.asked_at - _CLOCK_S <= started_at:
            found.append("began before it was granted")
        if ran_until > granted.ended_at + _CLOCK_S:
            found.append(f"went on {ran_until - granted.ended_at:.2f} s after the revoke")
        if receipt.get("tasks_run", 1) and self._is_closed(started_at):
            found.append("began while the owner had closed the machine")
        return found

    def _is_closed(self, at: float) -> bool:
        return any(begin + _CLOCK_S < at < end - _CLOCK_S for begin, end in self.closed)

    async def _close(self, *verb: str) -> None:
        code, _ = await self._say(*verb)
        if self._closed_at is None:
            self._closed_at = time.time() + (_UNHEARD_S if code else 0.0)

    async def _say(self, *verb: str) -> tuple[int, str]:
        said = await asyncio.to_thread(self.lender.owner, *verb, within_s=60.0)
        return said.returncode, said.stdout if not said.returncode else said.stdout + said.stderr
