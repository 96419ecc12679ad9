"""What every execution works with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lender.core.events import Event
from lender.daemon.inputs import InputCache
from lender.daemon.provisions import Views, no_devices
from lender.daemon.receipt_writer import ReceiptWriter
from lender.daemon.results import ResultMaker
from lender.daemon.seals import Seals
from lender.daemon.task_logs import TaskLogs
from lender.sandbox.port import RecordRoots, Sandbox, SandboxPlan
from lender.state.attempt_records import AttemptRecords
from lender.state.folder import StateFolder

OnLog = Callable[[int, bytes], None]
"""Hears what a task writes while it runs."""

OpenPort = Callable[[SandboxPlan, RecordRoots, Path, OnLog], Sandbox]
"""A plan, what writes down its processes, what keeps them from starting if it exists, and who
hears what its tasks write."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What every execution works with.

    `post` takes the daemon's events. `reread_consent` has the core hear what the owner's files
    say now: a sandbox that is gone may have been killed by `lender revoke`, which tells the
    daemon last. `devices` turns labels into what a sandbox sees of them, or raises
    PrepareFailedError.
    """

    open_sandbox: OpenPort
    state: StateFolder
    records: AttemptRecords
    inputs: InputCache
    results: ResultMaker
    seals: Seals
    receipts: ReceiptWriter
    logs: TaskLogs
    post: Callable[[Event], None]
    reread_consent: Callable[[], None]
    devices: Views = no_devices
