"""Who there is, and all that they try: what is theirs, what is another's, and what is nobody's."""

from typing import Literal, NamedTuple

from broker.core.enrolment.bound import Bound
from broker.deployment.tokens import Key
from lender.protocol import streams, subjects
from lender.protocol.classes import WorkClass, own_queue
from lender.protocol.permissions import RIGHTS, STRANGERS_INBOX, Role, completed, granted

Deed = Literal["publish", "subscribe"]


class Person(NamedTuple):
    """One who has a token, or has none."""

    name: str
    role: Role
    key: Key
    tags: tuple[str, ...] = ()

    def may(self, deed: Deed) -> tuple[str, ...]:
        """What the table grants."""
        return granted(self.role, deed, self.key.public, self.tags)


def _key(number: int) -> Key:
    return Key.make("user", bytes([number] * 32))


def class_of(submitter: Key) -> str:
    """The class of a submitter's modules."""
    return WorkClass("default", "wasm", "any", "none", submitter.public, "wasm").token


ALICE, BOB = _key(31), _key(32)
CLASS, OTHER_CLASS = class_of(ALICE), class_of(BOB)
BROKER = Person("broker", "broker", _key(30))
SUBMITTER = Person("submitter", "submitter", ALICE)
OTHER_SUBMITTER = Person("other submitter", "submitter", BOB)
LENDER = Person("lender", "lender", _key(33), completed((f"class:{CLASS}",)))
OTHER_LENDER = Person("other lender", "lender", _key(34), completed((f"class:{OTHER_CLASS}",)))
BOUND = Bound(submitters=(ALICE.public,)).within((CLASS, OTHER_CLASS, "*"))
BOUND_LENDER = Person("bound lender", "lender", _key(39), completed(f"class:{x}" for x in BOUND))
"""Its owner grants both submitters' work, and the operator approved it for one."""
OBSERVER = Person("observer", "observer", _key(35))
STRANGER = Person("stranger", "stranger", _key(38))
"""Who has no token: the key is of no use."""
PEOPLE = (
    *(BROKER, LENDER, OTHER_LENDER, BOUND_LENDER),
    *(SUBMITTER, OTHER_SUBMITTER, OBSERVER, STRANGER),
)

JOB = "job-0001"

_STREAMS = (
    streams.JOBS,
    streams.WORK,
    streams.RESULTS,
    *(stream(whose.public) for stream in (streams.bucket, streams.left) for whose in (ALICE, BOB)),
    streams.HEADS,
    streams.ENROLMENT,
    streams.LEADER,
    "OTHER",
)
_STREAM_CALLS = (
    "STREAM.CREATE.{}",
    "STREAM.UPDATE.{}",
    "STREAM.DELETE.{}",
    "STREAM.PURGE.{}",
    "STREAM.INFO.{}",
    "STREAM.SNAPSHOT.{}",
    "STREAM.RESTORE.{}",
    "STREAM.MSG.GET.{}",
    "STREAM.MSG.DELETE.{}",
    "STREAM.PEER.REMOVE.{}",
    "STREAM.LEADER.STEPDOWN.{}",
    "DIRECT.GET.{}",
    "DIRECT.GET.{}.>",
    "CONSUMER.CREATE.{}",
    "CONSUMER.LIST.{}",
    "CONSUMER.NAMES.{}",
)
_CONSUMER_CALLS = (
    "CONSUMER.CREATE.{}.{}",
    "CONSUMER.CREATE.{}.{}.>",
    "CONSUMER.DURABLE.CREATE.{}.{}",
    "CONSUMER.DELETE.{}.{}",
    "CONSUMER.INFO.{}.{}",
    "CONSUMER.MSG.NEXT.{}.{}",
    "CONSUMER.PAUSE.{}.{}",
    "CONSUMER.RESET.{}.{}",
    "CONSUMER.UNPIN.{}.{}",
    "CONSUMER.LEADER.STEPDOWN.{}.{}",
)
_CONSUMERS = (CLASS, OTHER_CLASS, *(own_queue(one.key.public) for one in (LENDER, OTHER_LENDER)))
_NOBODYS = (
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.ACCOUNT.PURGE.X",
    f"$JS.ACK.WORK.{CLASS}.1.1.1.1.0",
    f"$JS.ACK.WORK.{OTHER_CLASS}.1.1.1.1.0",
    "$JS.FC.WORK.x.y",
    "$JS.EVENT.ADVISORY.x",
    "$KV.x.y",
    "$MQTT.msgs.x",
    "$SRV.PING",
    "$SRV.STATS.lender-broker",
    "$SRV.STATS.lender-broker.x",
    "$SRV.STATS.another",
    "$SRV.a.b.c.d",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.USER.INFO",
    "$SYS.ACCOUNT.X.DISCONNECT",
    "_INBOX.x",
    "_R_.x",
    "enroll.x",
    "enrolment.x",
    "enrolled.lender.x",
    f"{STRANGERS_INBOX}.x",
    "x",
)
_SHA256 = "ab" * 32
_OTHERS_PIECES = tuple(
    place(whose.public, by.public, _SHA256, 0)
    for whose in (ALICE, BOB)
    for by in (ALICE, BOB, LENDER.key, OTHER_LENDER.key)
    for place in (subjects.blob, subjects.former_blob)
)
_ALL_PIECES = tuple(
    all_of(whose.public)
    for whose in (ALICE, BOB)
    for all_of in (subjects.of_bucket, subjects.of_left)
)
_WIDE = (
    ">",
    "*",
    "*.>",
    "*.*",
    "*.*.*",
    "submit.>",
    "cancel.>",
    "query.>",
    "offer.>",
    "done.>",
    "head.>",
    "ctl.>",
    "event.>",
    "log.>",
    "work.>",
    "blob.>",
    "out.>",
    "res.>",
    "leader.>",
    "$O.>",
    "$KV.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.ACK.>",
    "$JS.EVENT.>",
    "$SYS.>",
    "$MQTT.>",
    "$SRV.>",
    "_INBOX.>",
    "_R_.>",
    "enroll.*",
    "enroll.>",
    "enrolment.>",
    "enrolled.>",
    f"{STRANGERS_INBOX}.>",
    f"{STRANGERS_INBOX}.*",
)


def tried(deed: Deed) -> list[str]:
    """Every subject that everybody tries."""
    theirs = [pattern for one in PEOPLE for pattern in one.may(deed)]
    # Whoever may publish may not listen, and the other way round.
    others = [pattern for one in PEOPLE for pattern in one.may(_other(deed))]
    found = [*theirs, *map(_literal, theirs), *others, *map(_literal, others)]
    if deed == "subscribe":
        found += [*_WIDE, *_NOBODYS]
        found += [f"_INBOX_{one.key.public}.>" for one in PEOPLE]
        found += [f"_INBOX_{one.key.public}.x.*" for one in PEOPLE]
    else:
        found += [f"$JS.API.{call.format(one)}" for one in _STREAMS for call in _STREAM_CALLS]
        found += [
            f"$JS.API.{call.format(one, consumer)}"
            for one in _STREAMS
            for consumer in (*_CONSUMERS, "x")
            for call in _CONSUMER_CALLS
        ]
        found += _NOBODYS
        found += _OTHERS_PIECES
        found += [
            f"$JS.API.DIRECT.GET.{stream(whose.public)}.{piece}"
            for whose in (ALICE, BOB)
            for stream in (streams.bucket, streams.left)
            for piece in (*_OTHERS_PIECES, *_ALL_PIECES)
        ]
        found += [f"_INBOX_{one.key.public}.x.1" for one in PEOPLE]
    return list(dict.fromkeys(found))


def lines() -> list[tuple[Deed, str]]:
    """What the table has, filled in for those who are there."""
    return list(
        dict.fromkeys(
            (right.verb, pattern)
            for right in RIGHTS
            if right.verb != "answer"
            for one in PEOPLE
            if one.role == right.role
            for pattern in one.may(right.verb)
        )
    )


def _other(deed: Deed) -> Deed:
    return "subscribe" if deed == "publish" else "publish"


def _literal(pattern: str) -> str:
    """One subject that a pattern lets pass."""
    return pattern.replace("*", JOB).replace(">", JOB)
