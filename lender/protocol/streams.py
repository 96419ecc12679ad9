"""The streams and submitters' buckets, as JetStream configuration (facts: docs/protocol.md).

JOBS and RESULTS take one message per subject and discard new ones, so the server itself refuses
a second submission of a job id and a second result of a task. RESULTS outlives JOBS: a job that
the ledger still holds always finds its result on a replay. Buckets do the same: nobody replaces
what another has stored.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lender.protocol import bounds, subjects
from lender.protocol.classes import is_own_queue

JOBS = "JOBS"
WORK = "WORK"
RESULTS = "RESULTS"
HEADS = "HEADS"
ENROLMENT = "ENROLMENT"
LEADER = "LEADER"

ACK_WAIT_S = 30.0
"""A lease whose lender went silent is redelivered after this, should the broker be down too."""

IN_PROGRESS_S = 10.0
"""How often a lender extends the lease's ack wait."""

OWN_QUEUE_KEPT_S = 120.0
"""A lender's own queue that nobody pulls from is given up; the broker makes it anew."""

FORMER_BLOBS = "OBJ_blobs"
"""What earlier versions kept contents in, of all submitters together; nobody reads it any more."""

_HEADS_PER_LENDER = 8
_PIECE_BYTES_MAX = bounds.PIECE_BYTES + 4096
"""With subject and headers."""
_DAY_NS = 86_400 * 1_000_000_000
_SMALLEST_DUPLICATE_WINDOW_NS = 100_000_000

_ONE_PER_SUBJECT: dict[str, Any] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "discard_new_per_subject": True,
    "max_msgs_per_subject": 1,
    "allow_direct": True,
    # A message id would let a second, different submission look accepted: the subject decides.
    "duplicate_window": _SMALLEST_DUPLICATE_WINDOW_NS,
}


def stream_configs(
    replicas: int = 1, bytes_max: Mapping[str, int] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return the configuration of every stream that is kept, for `$JS.API.STREAM.CREATE`.

    Args:
        replicas: of each stream.
        bytes_max: how large those may become that are named; what comes then is refused.
    """
    jobs = {
        **_ONE_PER_SUBJECT,
        "name": JOBS,
        "subjects": [subjects.SUBMIT_FILTER, subjects.CANCEL_FILTER],
        "max_age": 8 * _DAY_NS,
    }
    results = {
        **_ONE_PER_SUBJECT,
        "name": RESULTS,
        "subjects": [subjects.RESULT_FILTER],
        "max_age": 16 * _DAY_NS,
        "allow_atomic": True,
        # The server tells of a job's end as soon as it is stored; its broker does a moment later.
        "republish": {"src": subjects.TERMINALS, "dest": subjects.TERMINAL_EVENTS},
    }
    work = {
        "name": WORK,
        "subjects": [subjects.WORK_FILTER],
        "retention": "workqueue",
        "storage": "file",
        "allow_direct": True,
        "duplicate_window": _SMALLEST_DUPLICATE_WINDOW_NS,
    }
    # A log that was cut shows against its head however old that is: no age ends one.
    heads = {
        "name": HEADS,
        "subjects": [subjects.HEAD_FILTER],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": _HEADS_PER_LENDER,
        "allow_direct": True,
        "duplicate_window": _SMALLEST_DUPLICATE_WINDOW_NS,
    }
    # The last word on each subject: a broker that writes it names the one that it has read. No age
    # ends one, or a bound would end with it; join tokens that nobody has used end by their own.
    enrolment = {
        "name": ENROLMENT,
        "subjects": [subjects.ENROLLED_FILTER],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "duplicate_window": _SMALLEST_DUPLICATE_WINDOW_NS,
    }
    all_of_them: tuple[dict[str, Any], ...] = (jobs, work, results, heads, enrolment)
    return [
        {**config, "num_replicas": replicas, "max_bytes": bytes_max.get(config["name"], -1)}
        for config in all_of_them
    ]


def bucket(submitter: str) -> str:
    """Return the name of the stream that holds what a submitter stores for its jobs."""
    return f"BLOBS_{submitter}"


def left(submitter: str) -> str:
    """Return the name of the stream that holds what lenders leave of a submitter's jobs."""
    return f"BLOBS_{submitter}_OUT"


def bucket_config(
    submitter: str, replicas: int = 1, bytes_max: int | None = None
) -> dict[str, Any]:
    """Return the configuration of the stream that holds what a submitter stores.

    Each piece of a content has a subject of its own, so that what is written stays: it is not
    replaced, and no header rolls it up.

    Args:
        submitter: its public key.
        replicas: of the stream.
        bytes_max: how much it may hold; what comes then is refused. None: no bound of its own.
            The server sets so much of its own room aside.
    """
    return {
        **_ONE_PER_SUBJECT,
        "name": bucket(submitter),
        # A stream that an earlier version has made keeps what lenders stored there.
        "subjects": [subjects.blob(submitter, submitter, "*", "*")],
        "max_age": int(bounds.CONTENT_KEPT_S * 1e9),
        "deny_delete": True,
        "max_msg_size": _PIECE_BYTES_MAX,
        "max_msgs": -1,
        "max_bytes": -1 if bytes_max is None else bytes_max,
        "num_replicas": replicas,
    }


def left_config(
    submitter: str, replicas: int = 1, bytes_max: int | None = None, *, set_aside: bool = True
) -> dict[str, Any]:
    """Return the configuration of the stream that holds what lenders leave of a submitter's jobs.

    Args:
        submitter: its public key.
        replicas: of the stream.
        bytes_max: as of `bucket_config`; it is this stream's own.
        set_aside: False for a server that has no room to set aside: then it holds no more than so
            many whole pieces, which are fewer bytes where pieces are small.
    """
    pieces_max = -1 if set_aside or bytes_max is None else max(1, bytes_max // _PIECE_BYTES_MAX)
    return {
        **bucket_config(submitter, replicas, bytes_max if set_aside else None),
        "name": left(submitter),
        "subjects": [subjects.of_left(submitter)],
        "max_msgs": pieces_max,
    }


def leader_config(replicas: int = 1) -> dict[str, Any]:
    """Return the stream of the leadership key: written every second, so it is kept in memory."""
    return {
        "name": LEADER,
        "subjects": [subjects.LEADERSHIP_KEY],
        "retention": "limits",
        "storage": "memory",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "duplicate_window": _SMALLEST_DUPLICATE_WINDOW_NS,
        "num_replicas": replicas,
    }


def consumer_config(class_token: str) -> dict[str, Any]:
    """Return the durable pull consumer that lenders share for a class, or that one has alone."""
    # One for each lender would cost the server most of its time: those not in use go.
    alone = {"inactive_threshold": int(OWN_QUEUE_KEPT_S * 1e9)} if is_own_queue(class_token) else {}
    return {
        "durable_name": class_token,
        "filter_subject": subjects.work(class_token),
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT_S * 1e9),
        "max_deliver": -1,
        "max_waiting": 8192,
        "max_ack_pending": 65_536,
        **alone,
    }
