"""Messages of WORK that nobody answers for any more."""

from broker.core.effects import DeleteWork, Record, Warn
from broker.core.state import State
from lender.protocol import subjects
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Lease


def look(state: State, messages: tuple[tuple[int, bytes], ...]) -> None:
    """Delete those of no outstanding lease; who has seen them is told by sequence and payload.

    A lender takes its message off once its last report is answered. Where that word got lost, or
    the report was one that an earlier process had left, the message comes again to whoever pulls
    its class; where nobody does any more, it would lie there for good.

    What is unknown here may be a lease of a broker that has taken over meanwhile. So first a
    commit has to land: then nobody had taken over when the messages were read.
    """
    left = [sequence for sequence, payload in messages if not _is_outstanding(state, payload)]
    if not left:
        return
    told = ", ".join(str(sequence) for sequence in left)
    state.outbox.emit(Warn(f"WORK {told}: of no outstanding lease, to be deleted"))
    state.outbox.commit([Record(subjects.term(state.new_lease_id()), {}, b"")])
    for sequence in left:
        state.outbox.after_commit(DeleteWork(sequence))


def _is_outstanding(state: State, payload: bytes) -> bool:
    try:
        return decode(Lease, payload).lease in state.leases
    except ProtocolError:
        return False
