"""Which processes belong to which sandbox: how `pause` and `revoke` find them without the daemon.

Standard library only. The executor writes a record before it lets a sandbox go. Records need no
fsync: the processes that they name don't outlive a power cut either.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from lender.sandbox.processes.boot import boot_id
from lender.sandbox.processes.cgroup import is_leaf_of
from lender.sandbox.processes.tree import Root
from lender.state.durable import StrPath, write_whole

_LOOKS_MAX = 20
"""Beside short leases a record goes every few milliseconds; two looks are nearly always enough."""


class AttemptTerms(NamedTuple):
    """What a receipt says of an attempt besides, known when it starts.

    Attributes:
        started_at: seconds since the epoch.
        cpu: cores that it asked for.
        bytes_in: what was fetched for it.
        program_sha256: None where no program came with it.
        inputs: names and SHA-256.
        cpu_before_s: CPU time in its cgroup before it began: of earlier attempts.
        network: where it may get to.
        moved_before: bytes in and out over the network before it began: of earlier attempts.
        traceparent: the submitter's span; None where it named none.
    """

    started_at: float
    cpu: int
    bytes_in: int
    program_sha256: str | None
    inputs: tuple[tuple[str, str], ...]
    cpu_before_s: float = 0.0
    network: tuple[str, ...] = ()
    moved_before: tuple[int, int] = (0, 0)
    traceparent: str | None = None


class AttemptRecord(NamedTuple):
    """One sandbox that stands.

    Attributes:
        lease: id of the lease it serves; names the file.
        job: id of the job.
        submitter: public key.
        workload: name of the workload.
        grant: id of the grant that allows it.
        roots: the processes on top of its trees.
        scratch: its folder; wiped by a revoke only if it lies directly in the state's `scratch`.
        cgroup: the leaf in which all of it stands; None where it has none.
        terms: for a receipt that lenderd can't write any more; None where it did not say.
    """

    lease: str
    job: str
    submitter: str
    workload: str
    grant: str
    roots: tuple[Root, ...]
    scratch: str
    cgroup: str | None = None
    terms: AttemptTerms | None = None


class AttemptReading(NamedTuple):
    """All records, and the files that are none: what those stand for can't be verified."""

    records: tuple[AttemptRecord, ...]
    unreadable: tuple[str, ...]


class AttemptRecords:
    """The records in one folder, a file per lease.

    A sandbox that goes on for another lease has two for a while: the new one is written first.

    Args:
        folder: directly in the state folder.
    """

    def __init__(self, folder: StrPath) -> None:
        self._folder = os.fspath(folder)

    def write(self, record: AttemptRecord) -> None:
        """Keep `record` until `remove`; an earlier one of the same lease is replaced.

        Raises:
            OSError: it could not be written; then the sandbox must not be let go.
        """
        content = {
            "v": 1,
            "boot_id": boot_id(),
            "lease": record.lease,
            "job": record.job,
            "submitter": record.submitter,
            "workload": record.workload,
            "grant": record.grant,
            "roots": [list(root) for root in record.roots],
            "scratch": record.scratch,
            "cgroup": record.cgroup,
            "terms": None if record.terms is None else record.terms._asdict(),
        }
        write_whole(self._path(record.lease), json.dumps(content).encode(), durable=False)

    def written_at(self, lease: str) -> float | None:
        """When the record of `lease` was written, seconds since the epoch; None: there is none."""
        try:
            return os.stat(self._path(lease)).st_mtime
        except OSError:
            return None

    def remove(self, lease: str) -> None:
        """Forget the record of `lease`, if there is one: its processes are gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(lease))

    def read_all(self) -> AttemptReading:
        """Read every record; those of an earlier boot name no process any more: roots are empty.

        Raises:
            OSError: the folder can't be listed (a missing one counts as empty).
        """
        for _ in range(_LOOKS_MAX):
            reading, gone = self._read_listed()
            if not gone:
                break
            # It may have handed its processes on to a record that was not there when we listed.
        return reading

    def _read_listed(self) -> tuple[AttemptReading, bool]:
        """One pass, and whether a record that was listed went meanwhile."""
        boot, state, gone = boot_id(), os.path.dirname(self._folder), False
        records, unreadable = [], []
        for path in _listed(self._folder):
            try:
                with open(path, "rb") as file:
                    record = _decode(json.loads(file.read()), boot, state)
            except FileNotFoundError:
                gone = True
            except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
                unreadable.append(path)
            else:
                records.append(record)
        return AttemptReading(tuple(records), tuple(unreadable)), gone

    def _path(self, lease: str) -> str:
        return f"{self._folder}/{lease}.json"


def _listed(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    return [f"{folder}/{n}" for n in names if n.endswith(".json") and not n.startswith(".")]


def _decode(content: Mapping[str, Any], boot: str, state: str) -> AttemptRecord:
    same_boot = content["boot_id"] == boot
    roots = [Root(int(pid), int(start)) for pid, start in content["roots"]] if same_boot else []
    return AttemptRecord(
        lease=str(content["lease"]),
        job=str(content["job"]),
        submitter=str(content["submitter"]),
        workload=str(content["workload"]),
        grant=str(content["grant"]),
        roots=tuple(roots),
        scratch=str(content["scratch"]),
        cgroup=_leaf(content.get("cgroup"), state) if same_boot else None,
        terms=_terms(content.get("terms")),
    )


def _terms(content: Mapping[str, Any] | None) -> AttemptTerms | None:
    if content is None:
        return None  # of a version that kept none
    program = content["program_sha256"]
    return AttemptTerms(
        started_at=float(content["started_at"]),
        cpu=int(content["cpu"]),
        bytes_in=int(content["bytes_in"]),
        program_sha256=None if program is None else str(program),
        inputs=tuple((str(name), str(digest)) for name, digest in content["inputs"]),
        cpu_before_s=float(content.get("cpu_before_s", 0.0)),
        network=tuple(str(place) for place in content.get("network", ())),
        moved_before=_pair(content.get("moved_before", (0, 0))),
        traceparent=None if content.get("traceparent") is None else str(content["traceparent"]),
    )


def _pair(numbers: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever the file holds
    first, second = numbers
    return int(first), int(second)


def _leaf(path: Any, state: str) -> str | None:  # noqa: ANN401 - whatever the file holds
    """The cgroup that a record names; whoever follows it is to hit nobody else's processes.

    Raises:
        ValueError: it is none of this state folder's.
    """
    if path is None:
        return None
    if not isinstance(path, str) or not is_leaf_of(path, state):
        raise ValueError(f"{path} is no cgroup of {state}")
    return path
