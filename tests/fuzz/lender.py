"""The daemon's core: a hostile broker, and a hostile submitter whom the owner has let in."""

from core_world import ALICE, START, Bench, class_of, lease_id, make_lease, make_spec

from fuzz.target import Target, taken
from fuzz.wire import SPECS
from lender.core.effects import Effect, OpenSandbox
from lender.core.events import ClassesOpened, GangGathered, LeasesCancelled
from lender.protocol.bounds import SPEC_BYTES_MAX
from lender.protocol.codec import JSON, MSGPACK, decode, encode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Control, Lease


def _still_lends(bench: Bench) -> None:
    """What came does not keep it from the next."""
    bench.wait(1.0)
    bench.deliver(make_lease(make_spec(id="job-after"), number=7777))
    bench.wait(1.0)


def _only_what_is_granted(effects: list[Effect]) -> None:
    for one in effects:
        if isinstance(one, OpenSandbox):
            assert (one.spec.submitter, one.spec.workload) == (ALICE.public_key, "render")
            assert one.spec.not_after > START
            assert set(one.lease.tasks()) <= set(range(one.spec.task_end))


def _lease(data: bytes) -> None:
    """A message of a work queue."""
    lease = taken(ProtocolError, decode, Lease, data, MSGPACK)
    if lease is not None:
        bench = Bench().ready()
        _only_what_is_granted(bench.deliver(lease))
        _still_lends(bench)


def _spec(data: bytes) -> None:
    """A specification that Alice did sign; the first byte names its content type."""
    payload = data[1 : 1 + SPEC_BYTES_MAX]
    content_type = JSON if data[:1] == b"j" else MSGPACK
    fields = {"spec": payload, "content_type": content_type, "signature": ALICE.sign(payload)}
    bench = Bench().ready()
    _only_what_is_granted(bench.deliver(make_lease().model_copy(update=fields)))
    _still_lends(bench)


def _control(data: bytes) -> None:
    control = taken(ProtocolError, decode, Control, data, MSGPACK)
    if control is not None:
        bench = Bench().ready()
        bench.run(make_lease())
        bench.tell(ClassesOpened(control.classes, control.stand_s))
        bench.tell(LeasesCancelled(control.leases))
        bench.tell(GangGathered(control.leases))
        _still_lends(bench)


TARGETS = (
    Target(
        "lender-lease",
        _lease,
        (encode(make_lease()), encode(make_lease(make_spec(array={"count": 9}), ranges=((2, 3),)))),
        ("lender.daemon.work_queues.WorkQueues._on_delivery",),
    ),
    Target(
        "lender-spec",
        _spec,
        tuple(
            mark + encode(one, kind)
            for one in SPECS
            for mark, kind in ((b"j", JSON), (b"m", MSGPACK))
        ),
        ("lender.core.admission.admit",),
    ),
    Target(
        "lender-control",
        _control,
        (
            encode(Control(kind="open", classes=(class_of(),))),
            encode(Control(kind="start", leases=(lease_id(1),))),
        ),
        ("lender.daemon.work_queues.WorkQueues._on_control",),
    ),
)
