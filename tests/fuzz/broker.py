"""The broker: whatever one stranger says, others' jobs go on, and so does a start anew."""

import tempfile
from pathlib import Path

from broker_world import ALICE, BOB, L1, L2, L3, START, Queued, World, class_of, job_spec, ok

from broker.core.durable.records import (
    SUMMARY_HEADER,
    CheckpointsSummary,
    ChunkSummary,
    RetriesSummary,
    Summary,
    TerminalSummary,
    VotesSummary,
)
from broker.core.events import OfferReceived, QueryReceived
from broker.core.intake.quotas import Quota
from broker.deployment.server_words import (
    account_of,
    done_of,
    present_of,
    settings_of,
    users_of,
)
from broker.deployment.tokens import Key, TokenError, decode
from broker.deployment.tokens import encode as token_of
from broker.service.leader_key import holder_of
from broker.service.submitters import FILE_NAME, SubmittersError, SubmittersFile
from fuzz.messages import read, written
from fuzz.target import Target, taken
from lender.link.errors import LinkError
from lender.protocol import subjects
from lender.protocol.codec import CONTENT_TYPE_HEADER, JSON, MSGPACK, encode
from lender.protocol.job import BlobRef
from lender.protocol.lease import Done, Offer
from lender.protocol.query import Query, QueryReply
from lender.protocol.signature import SIGNATURE_HEADER

_SPEC = encode(job_spec())
_SIGNED = {SIGNATURE_HEADER: ALICE.sign(_SPEC)}
_KEY = ALICE.public_key


def _goes_on(world: World) -> None:
    """Bob's job runs, on a lender that has heard of nothing."""
    world.submit(job_spec(BOB, "job-of-bob"), BOB)
    world.offer(L3, classes=[class_of(BOB)])
    (lease,) = world.queued(class_of(BOB))
    assert world.run(lease, L3) == "committed"
    terminal = world.terminal("job-of-bob", BOB)
    assert terminal is not None
    assert terminal.state == "succeeded"


def _submission(data: bytes) -> None:
    subject, headers, payload = read(data)
    tokens = subject.split(".")
    if len(tokens) != 3 or tokens[0] != "submit" or not all(tokens):
        subject = subjects.submit(_KEY, "job-0001")  # JOBS takes no other
    world = World()
    world.submit_raw(subject, headers, payload)
    world.pass_time(1.0)
    world.start()
    _goes_on(world)
    full = World()
    full.submit(job_spec(job="job-0009"))
    full.broker.state.quotas.change({_KEY: Quota(jobs_max=1)})
    full.submit_raw(subject, headers, payload)


def _offer(data: bytes) -> None:
    world = World()
    world.submit(job_spec(count=10))
    world.offer(L1)
    world.do(OfferReceived(L2, data))
    world.pass_time(5.0)
    _goes_on(world)


def _report(data: bytes) -> None:
    world = World()
    world.submit(job_spec(count=3, checkpoint=True, retries=1))
    world.offer(L1)
    for lender in (L2, L1):
        assert world.verdict(world.report_raw(data, lender)) in ("committed", "stale", "malformed")
    world.pass_time(5.0)
    world.start()
    _goes_on(world)


def _query(data: bytes) -> None:
    world = World()
    world.submit(job_spec())
    _, headers, payload = read(data)
    world.do(QueryReceived(_KEY, headers, payload, "reply"))
    answer = world.replies["reply"]
    assert isinstance(answer, QueryReply)
    encode(answer, JSON)
    encode(answer, MSGPACK)


def _record(data: bytes) -> None:
    """A record of RESULTS, as somebody else may have written it."""
    subject, headers, payload = read(data)
    for kind in (ChunkSummary, TerminalSummary, CheckpointsSummary, RetriesSummary, VotesSummary):
        _summary(kind, headers)
    world = World()
    world.submit(job_spec(count=20))
    world.results[subject if subject.startswith("res.") else f"res.{_KEY}.job-0001"] = (
        headers,
        payload,
    )
    world.start()
    world.offer(L1)
    _goes_on(world)


def _summary(kind: type[Summary], headers: dict[str, str]) -> None:
    summary = kind.load(headers)
    if summary is not None:
        again = kind.load({SUMMARY_HEADER: summary.dump()})
        assert again is not None
        assert again.dump() == summary.dump()


def _lease(data: bytes) -> None:
    """A message of WORK, as somebody else may have written it."""
    _, headers, payload = read(data)
    world = World()
    world.submit(job_spec(count=20))
    world.work[99] = Queued(class_of(), headers, payload)
    world.look_through_work()
    world.start()
    world.offer(L1)
    _goes_on(world)


def _leader(data: bytes) -> None:
    holder = taken(ValueError, holder_of, data)
    assert holder is None or isinstance(holder, str)


def _servers(data: bytes) -> None:
    """What whoever answers the operator's commands says."""
    taken(LinkError, done_of, data)
    settings = taken(LinkError, settings_of, data)
    assert settings is None or settings.is_open in (True, False)
    taken(LinkError, present_of, data)
    account = taken(LinkError, account_of, data)
    assert account is None or account.is_passed_over("x") in (True, False)
    users = taken(LinkError, users_of, data)
    assert users is None or all(isinstance(one.called, str) for one in users.data.connections)


def _token(data: bytes) -> None:
    """A token says what its issuer signed, or nothing."""
    text = data.decode(errors="replace")
    claims = taken(TokenError, decode, text)
    assert claims is None or claims == decode(_TOKEN), "nobody else has the key"
    taken(TokenError, Key, data)


def _submitters(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = SubmittersFile(Path(folder))
        (Path(folder) / FILE_NAME).write_bytes(data)
        found = taken(SubmittersError, file.read)
        if found is not None:
            file._write(found)
            assert file.read() == found
            found.event(())
            found.as_table({})


def _a_lease() -> bytes:
    world = World()
    world.submit(job_spec(count=20))
    world.offer(L1)
    (queued, *_) = world.work.values()
    return written(f"work.{class_of()}", queued.headers, queued.payload)


_OPERATOR = Key.make("operator", bytes(32))
_TOKEN = token_of(_KEY, "alice", {"type": "user"}, _OPERATOR, START)

_SUMMARIES = (
    ("5", ChunkSummary(((5, 2),), 1, 1, ((6, 1),))),
    ("6", ChunkSummary(((6, 2),), 2, 0, ((6, 2),), START)),
    ("", TerminalSummary("fold", "failed", 20, 19, 1, START, START + 1, ((6, 1),), ((8, 1),))),
    ("cp.0", CheckpointsSummary(((1, BlobRef(sha256="ab" * 32, size_bytes=9)),), 1)),
    ("retry.0", RetriesSummary(((1, 2),), 1, 1)),
    ("vote.0", VotesSummary(L1, 1, 0, ((1, "ab"),))),
)

TARGETS = (
    Target(
        "broker-submission",
        _submission,
        (
            written(subjects.submit(_KEY, "job-0001"), _SIGNED, _SPEC),
            written(
                subjects.submit(_KEY, "job-0001"),
                {CONTENT_TYPE_HEADER: JSON},
                encode(job_spec(count=9), JSON),
            ),
            written(
                subjects.submit(_KEY, "job-0001"), {}, encode(job_spec(count=9, separate=True))
            ),
        ),
        ("broker.core.intake.admission._checked", "broker.core.intake.admission.over_quota"),
    ),
    Target(
        "broker-offer",
        _offer,
        (
            encode(
                Offer(
                    lender=L2,
                    name="other",
                    phase="lending",
                    slots_total=4,
                    slots_free=4,
                    cpu_free=4.0,
                    memory_free_bytes=1 << 40,
                    arch="x86_64",
                    os="linux",
                    runtimes=("process",),
                    classes=(class_of(),),
                    consent_digest="",
                )
            ),
        ),
        ("broker.core.leasing.presence.hear_offer",),
    ),
    Target(
        "broker-report",
        _report,
        (
            encode(
                Done(
                    lease=f"{1:022d}",
                    job="job-0001",
                    submitter=_KEY,
                    results=(ok(0), ok(1)),
                    checkpoints=((2, BlobRef(sha256="ab" * 32, size_bytes=9)),),
                    final=True,
                    outcome="evicted",
                )
            ),
        ),
        ("broker.core.leasing.reports.hear_report",),
    ),
    Target(
        "broker-query",
        _query,
        (
            written("query", {}, encode(Query(job="job-0001", task=0))),
            written("query", {CONTENT_TYPE_HEADER: JSON}, b'{"v": 1}'),
        ),
        ("broker.core.answers.queries.answer",),
    ),
    Target(
        "broker-record",
        _record,
        (
            *(
                written(f"res.{_KEY}.job-0001.{kind}".rstrip("."), {SUMMARY_HEADER: one.dump()})
                for kind, one in _SUMMARIES
            ),
            written(subjects.begun(_KEY, "job-0001"), {}),
        ),
        (
            "broker.core.durable.records.Summary.load",
            "broker.core.durable.records.TerminalSummary._read",
        ),
        tuple(
            f'"{name}":'.encode()
            for name in ("t", "f", "a", "ft", "n", "s", "o", "at", "e", "v", "l")
        ),
    ),
    Target(
        "broker-lease",
        _lease,
        (_a_lease(),),
        (
            "broker.core.durable.replay.Replay.lease",
            "broker.core.leasing.leftovers._is_outstanding",
        ),
    ),
    Target(
        "broker-leader",
        _leader,
        (b'{"broker": "one"}', b'{"broker": null}'),
        ("broker.service.leader_key.holder_of",),
    ),
    Target(
        "broker-token",
        _token,
        (_TOKEN.encode(), _OPERATOR.seed),
        (
            "broker.deployment.tokens.decode",
            "broker.deployment.folder.Deployment.said",
            "broker.deployment.folder.Deployment.vouch",
        ),
        (b".", b"eyJ0eXAiOiJKV1Qi", b"W1tb"),
    ),
    Target(
        "broker-servers",
        _servers,
        (
            b'{"server": {"id": "NA", "name": "n"}, "data": {"account": "A", "code": 200}}',
            b'{"server": {"id": "NA"}, "error": {"code": 500, "description": "no"}}',
            (
                b'{"server": {"id": "NA"}, "data": {"total": 1, "connections": [{"name": "x",'
                b' "authorized_user": "U", "issuer_key": "A", "jwt": "x.e30.y", "ip": "::1"}]}}'
            ),
            b'{"server": {"id": "NA"}, "data": {"cluster": {"cluster_port": 1, "tls_verify": 1}}}',
            b'{"server": {"id": "NA"}, "statsz": {"active_servers": 3}}',
            b'{"server": {"id": "NA"}, "data": {"account_detail": {"expired": true, "jwt": "x"}}}',
        ),
        ("lender.link.server_words.read_told",),
        (b'"data":', b'"connections":', b'"issuer_key":', b'"id":', b'"account_detail":'),
    ),
    Target(
        "broker-submitters",
        _submitters,
        (
            f'[alice]\nkey = "{_KEY}"\nweight = 2.0\njobs_max = 10\n\n[default]\ntasks_max = 5\n'
            f"bytes_max = 1000000\n".encode(),
            f'alice = "{_KEY}"\n'.encode(),
        ),
        (
            "broker.service.submitters.SubmittersFile.read",
            "broker.service.allowances.Submitters.parse",
        ),
        (b"running_tasks_max", b'"', b"[[", b"inf", b"nan"),
    ),
)
