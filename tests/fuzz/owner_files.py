"""The owner's files: their content may be damaged, and some lie in another user's folder."""

import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core_world import ALICE, make_grant

from fuzz.target import Target, taken
from fuzz.wire import DONE
from lender.cli.checks.overlay import LockError, pin_of
from lender.cli.exits import CommandError
from lender.cli.grant import options_of, wanted
from lender.cli.proposals import ProposalError, read_words
from lender.client import workload
from lender.client.errors import Rejected
from lender.client.filling import filled
from lender.client.specs import Content, JobRequest
from lender.core.jobs_done import JobsDone
from lender.core.signals import GpuSignal, Presence, Signals
from lender.daemon import catalogue as daemon_catalogue
from lender.daemon.jobs_done_file import JobsDoneFile
from lender.daemon.metrics import DaemonMetrics
from lender.daemon.reporter import _readable
from lender.daemon.signal_history import SignalHistory
from lender.daemon.signal_rows import BlockError, pack, unpack
from lender.daemon.spool import Spool
from lender.protocol.codec import encode
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import verify
from lender.sandbox.egress.counters import Counters
from lender.service.bounded_text import read_bounded
from lender.service.build import revision
from lender.service.workload_folders import installed_workloads
from lender.state import programs
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.consent_files import load_consent, read_intent
from lender.state.folder import StateFolder, read_account, read_pid
from lender.state.grant_claims import read_claim
from lender.state.grant_file import GrantFaultError, encode_grant, read_grant
from lender.state.intent_file import StoredIntent, write_stored
from lender.state.receipts import ReceiptLog

_READING = Signals(
    0.5,
    8 << 30,
    pressure_cpu=1.0,
    presence=Presence(idle_s=9.0),
    gpus=(GpuSignal("GPU-0", 7 << 30),),
)
_FILES: dict[str, Content] = dict.fromkeys(("a", "b", "c"), b"")
_ROWS = [(1_700_000_000.0 + second, _READING) for second in range(3)]
_CATALOGUE = (installed_workloads() / "checksum" / "workload.toml").read_bytes()
_COMMAND = (installed_workloads() / "gpu-matmul" / "workload.toml").read_bytes()


@contextmanager
def _state() -> Iterator[StateFolder]:
    with tempfile.TemporaryDirectory() as folder:
        state = StateFolder(folder)
        state.create()
        yield state


def _grant(data: bytes) -> None:
    with _state() as state:
        path = state.grants / "G-1.toml"
        path.write_bytes(data)
        path.chmod(0o600)
        read_claim(path)
        allowed = load_consent(state).consent.grants
        found = taken(GrantFaultError, read_grant, path)
        assert allowed == (() if found is None else (found[0],))
        if found is not None:
            # No grant is made with a date that can't be written.
            again = taken(ValueError, encode_grant, found[0], "shown", found[1], 0)
            if again is not None:
                path.write_bytes(again)
                assert read_grant(path) == found


def _proposal(data: bytes) -> None:
    """What is proposed comes to options of `lender grant` or to a refusal, and grants nothing."""
    with _state() as state:
        path = state.path / "alice.toml"
        path.write_bytes(data)
        words = taken(ProposalError, read_words, path)
        asked = None if words is None else taken(ProposalError, options_of, words)
        if asked is not None:
            assert not any((asked.yes, asked.replace, asked.state, asked.proposed))
            taken(CommandError, wanted, asked, load_consent(state), {})
        assert load_consent(state).consent.grants == ()


def _lock(data: bytes) -> None:
    """Of an owner's overlay; what it pins is a revision, and shows on a terminal as it is."""
    with _state() as state:
        path = state.path / "flake.lock"
        path.write_bytes(data)
        text = taken(ValueError, read_bounded, path)
        pin = None if text is None else taken(LockError, pin_of, text, "lender")
        if pin is not None:
            assert len(pin.revision) in (40, 64)
            assert (pin.revision + pin.follows).isprintable()


def _build(data: bytes) -> None:
    """What an installer left beside the package: a revision or nothing."""
    with _state() as state:
        folder = state.path / "lender-0.1.0.dist-info"
        folder.mkdir()
        (folder / "direct_url.json").write_bytes(data)
        assert len(revision(state.path) or "a" * 40) in (40, 64)


def _intent(data: bytes) -> None:
    """Whatever is no intent counts as a pause."""
    with _state() as state:
        state.intent.write_bytes(data)
        intent = read_intent(state)
        stored = StoredIntent(
            intent.paused, intent.paused_at, intent.until, intent.finish_by, intent.said_by
        )
        write_stored(state, stored)
        assert read_intent(state) == intent


def _attempt(data: bytes) -> None:
    with _state() as state:
        (state.attempts / "lease.json").write_bytes(data)
        reading = AttemptRecords(state.attempts).read_all()
        assert len(reading.records) + len(reading.unreadable) == 1
        for record in reading.records:
            assert record.cgroup is None


def _process(data: bytes) -> None:
    with _state() as state:
        state.pid_file.write_bytes(data)
        read_pid(state)
        read_account(state)


def _receipts(data: bytes) -> None:
    """A log, and behind a zero byte its head: looked at, and gone on with."""
    lines, _, head = data.partition(b"\0")
    with _state() as state:
        state.receipts.write_bytes(lines)
        state.receipts.with_suffix(".head").write_bytes(head)
        log = ReceiptLog(state.receipts, ALICE)
        list(log.read())
        list(log.read_back())
        log.examine(_holds, ALICE.public_key)
        log.append({"lease": "lease-1"})
        last = next(log.read_back())
        assert last["lease"] == "lease-1"
        log.examine(_holds, ALICE.public_key)


def _holds(key: str, payload: bytes, signed: str) -> bool:
    try:
        verify(key, payload, signed)
    except ProtocolError:
        return False
    return True


def _workload(data: bytes) -> None:
    """Each of the three that read a description, and what becomes of a job by it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checksum"
        place.mkdir()
        (place / "workload.toml").write_bytes(data)
        (place / "checksum.wasm").write_bytes(b"")
        programs.read_programs(Path(folder))
        taken(daemon_catalogue.CatalogueError, daemon_catalogue.read_catalogue, Path(folder))
        (place / "matmul.py").touch()
        (place / "matmul.ptx").touch()
        found = taken(workload.CatalogueError, workload.read, place)
        if found is not None:
            taken(Rejected, filled, JobRequest(argv=("a", "b", "c"), inputs=_FILES), found)


def _spooled(data: bytes) -> None:
    """The name of a report's file, and its content."""
    name, _, content = data.partition(b"\n")
    with _state() as state:
        place = state.spool / ALICE.public_key
        place.mkdir()
        if name and b"/" not in name and b"\0" not in name and len(name) < 200:
            Path(str(place), name.decode(errors="surrogateescape") + ".report").write_bytes(content)
        for one in Spool(state).pending():
            assert one.payload == content
            _readable(content)
            Spool(state).put(one)
            assert one in Spool(state).pending()


def _jobs_done(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs-done"
        path.write_bytes(data)
        file = JobsDoneFile(path)
        try:
            kept = [*file.read()]
            JobsDone().recall(kept)
            for one in kept[:3]:
                file.append(one)
                # What was cut off takes the next along.
                assert data[-1:] != b"\n" or [*file.read()][-1] == one
        finally:
            file.close()


def _metrics(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics"
        path.write_bytes(data)
        core: Any = None  # not asked before the machine was sampled
        DaemonMetrics(path, core, lambda: 0.0, 1, lambda: 1.8e9)


def _readings(data: bytes) -> None:
    taken(BlockError, unpack, data)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "00000001.signals").write_bytes(data)
        history = SignalHistory(Path(folder))
        list(history.read(0.0))
        history.record(*_ROWS[0])
        history.close()


def _framed(block: bytes) -> bytes:
    return struct.pack("<HI", len(block), zlib.crc32(block)) + block


def _counters(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counters"
        path.write_bytes(data)
        counters = Counters.at(path)
        try:
            assert all(0 <= one <= 1 << 60 for one in counters.read())
            assert counters.left() >= 0
            counters.add(in_bytes=1)
        finally:
            counters.close()


def _log() -> bytes:
    with _state() as state:
        log = ReceiptLog(state.receipts, ALICE)
        for number in range(3):
            log.append({"lease": f"lease-{number}", "outcome": "succeeded"})
        head = state.receipts.with_suffix(".head").read_bytes()
        return state.receipts.read_bytes() + b"\0" + head


def _record() -> bytes:
    with _state() as state:
        terms = AttemptTerms(1.0, 1, 0, None, (("scene.bin", "ab" * 32),), network=("internet",))
        AttemptRecords(state.attempts).write(
            AttemptRecord("lease", "job", "U", "render", "G-1", (), "/scratch/x", terms=terms)
        )
        return (state.attempts / "lease.json").read_bytes()


def _written(write: Callable[[StateFolder], object], path: Callable[[StateFolder], Path]) -> bytes:
    with _state() as state:
        write(state)
        return path(state).read_bytes()


TARGETS = (
    Target(
        "owner-grant",
        _grant,
        (
            encode_grant(make_grant(net=("internet",)), "shown", "alice", 0),
            encode_grant(make_grant(devices=("accel-hailo8",)), "shown", "alice", 0),
            b'id = "G-1"\n[limits]\ncpu = 1\n',
        ),
        ("lender.state.grant_file._parse", "lender.state.grant_claims._table"),
        (
            b"[budget]\ncpu_s_per_day = ",
            b"when = ",
            b"net = ",
            b"devices = ",
            b"9999-12-31T23:59:59Z",
            b"[[",
            b"nan",
        ),
    ),
    Target(
        "owner-proposal",
        _proposal,
        (
            f'submitter = "alice={ALICE.public_key}"\nworkload = "render"\nexpires = "30d"\n'
            f'cpu = 2\nmem = "2G"\ngpu = true\nwhen = "away"\nbudget = ["1cpuh/day"]\n'.encode(),
        ),
        ("lender.cli.proposals.read_words",),
        (b"yes = true", b"state = ", b"--yes", b"net = ", b"9999-12-31", b"[[", b"nan", b"false"),
    ),
    Target(
        "owner-lock",
        _lock,
        (
            json.dumps(
                {
                    "nodes": {
                        "core": {
                            "locked": {"rev": "0f" * 20, "type": "git"},
                            "original": {"ref": "main", "type": "git"},
                        },
                        "root": {"inputs": {"core": "core", "lender": ["core"]}},
                    },
                    "root": "root",
                    "version": 7,
                }
            ).encode(),
        ),
        ("lender.cli.checks.overlay.pin_of",),
        (b'"inputs":', b'"locked":', b'["lender"]', b'"rev":', b'"\\u001b[2J"'),
    ),
    Target(
        "owner-build",
        _build,
        (b'{"url": "file:///x", "vcs_info": {"vcs": "git", "commit_id": "' + b"0f" * 20 + b'"}}',),
        ("lender.service.build.revision",),
        (b'"vcs_info":', b'"commit_id":', b"null"),
    ),
    Target(
        "owner-intent",
        _intent,
        (
            _written(
                lambda state: write_stored(state, StoredIntent(True, 1.7e9, 1.8e9, None, 1000)),
                lambda state: state.intent,
            ),
        ),
        ("lender.state.intent_file.read_stored",),
        (b"Infinity", b"NaN", b"1e999", b"null", b'"until":'),
    ),
    Target(
        "owner-attempt",
        _attempt,
        (_record(),),
        ("lender.state.attempt_records.AttemptRecords._read_listed",),
        (b"Infinity", b"NaN", b"1e999", b"null", b'"terms":', b'"roots":', b'"cgroup":'),
    ),
    Target(
        "owner-process",
        _process,
        (json.dumps({"pid": 1, "start_time": 2, "boot_id": "b", "spared": [[1, 2]]}).encode(),),
        ("lender.state.folder.read_account", "lender.state.folder.read_pid"),
        (b"Infinity", b"1e999", b'"spared":'),
    ),
    Target(
        "owner-receipts",
        _receipts,
        (_log(),),
        ("lender.state.receipt_chain.parse", "lender.state.receipts.ReceiptLog._read_head"),
        (b',"hash":"', b',"signature":null}\n', b'"prev":', b'"by":"owner"', b'"seq":'),
    ),
    Target(
        "owner-workload",
        _workload,
        (
            _CATALOGUE,
            _COMMAND.replace(b"gpu-matmul", b"checksum"),
            b'name = "checksum"\ntitle = "t"\nruntime = "python"\n',
        ),
        (
            "lender.daemon.catalogue._read",
            "lender.state.programs.read_programs",
            "lender.client.workload.read",
        ),
        (
            *(b"[limits]", b"[inputs]", b"[outputs]", b"requires.", b"files = ", b"command = "),
            *(b"{...}", b"{A}", b'"..." = "x"', b'"[x]" = "x"'),
            *(b"sha256 = ", b"entry = ", b"[[", b"1979-05-27"),
        ),
    ),
    Target(
        "owner-report",
        _spooled,
        (b"lease-1-000001\n" + encode(DONE),),
        ("lender.daemon.reporter._readable",),
    ),
    Target(
        "owner-jobs-done",
        _jobs_done,
        (b"ab" * 16 + b" 3 4\n" + b"cd" * 16 + b" 0 1\n",),
        ("lender.core.jobs_done.JobsDone.recall",),
        (b"\r", b"\x1c", b" 999999999999999999"),
    ),
    Target(
        "owner-metrics",
        _metrics,
        (
            b'{"day": 20833, "shown": {"lender_attempts": {"succeeded": 1}}, "held": {}}',
            b'{"day": Infinity}',
        ),
        ("lender.daemon.metrics.DaemonMetrics._restore",),
        (b"Infinity", b"NaN", b"1e999", b"null", b'"day":', b'"held":'),
    ),
    Target(
        "owner-readings",
        _readings,
        (pack(_ROWS), _framed(pack(_ROWS))),
        (
            "lender.daemon.signal_rows.unpack",
            "lender.daemon.signal_history._blocks",
        ),
    ),
    Target(
        "owner-counters",
        _counters,
        (bytes(31) + b"\x01", bytes(7) + b"\x09" + bytes(24)),
        (
            "lender.sandbox.egress.counters.Counters.read",
            "lender.sandbox.egress.counters.Counters.left",
        ),
    ),
)
