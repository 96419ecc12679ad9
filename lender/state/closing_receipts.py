"""The receipt of an attempt that no lenderd is left to account for: it was killed, or is not there.

Standard library only: `lender revoke` writes one as well. What was fetched and what ran is known
from the attempt's record. CPU time is what the kernel counted; where it did not, all the time on
all the cores that the attempt asked for counts, and the receipt says so: were it nothing, every
crash would lift a budget. What tasks moved over the network is as their proxies counted it.
Results, memory and energy are not known and left out.
"""

from typing import Any

from lender.state.attempt_records import AttemptRecord
from lender.state.moved_bytes import MovedBytes

COUNTED = "counted by the kernel"


def closing_receipt(
    record: AttemptRecord,
    outcome: str,
    ended: str,
    *,
    written_at: float,
    ran_until: float,
    ended_at: float,
    cpu_s: float = 0.0,
    moved: MovedBytes | None = None,
) -> dict[str, Any]:
    """Return the receipt's fields; times are seconds since the epoch.

    Args:
        record: what it left behind.
        outcome: its state at the end.
        ended: why it ended, in words.
        written_at: when the record was written: the start, where the record does not say.
        ran_until: it ran no longer than that.
        ended_at: when its end was found out.
        cpu_s: CPU time that the kernel counted; 0 where it did not.
        moved: what its tasks moved over the network; None where they had none.
    """
    terms = record.terms
    if terms is not None and cpu_s >= terms.cpu_before_s:
        cpu_s -= terms.cpu_before_s
    fields: dict[str, Any] = {
        "lease": record.lease,
        "job": record.job,
        "submitter": record.submitter,
        "workload": record.workload,
        "grant": record.grant,
        "outcome": outcome,
        "ended": ended,
        "started_at": terms.started_at if terms else written_at,
        "ended_at": ended_at,
    }
    if terms is not None:
        fields["program_sha256"] = terms.program_sha256
        fields["inputs"] = [list(one) for one in terms.inputs]
        fields["bytes_in"] = terms.bytes_in
        if terms.traceparent is not None:
            fields["traceparent"] = terms.traceparent
    if moved is not None and terms is not None:
        fields["network"] = list(terms.network)
        fields["network_in_bytes"], fields["network_out_bytes"] = moved
    if cpu_s > 0:
        fields |= {"cpu_s": cpu_s, "cpu_method": COUNTED}
    elif terms is not None:
        fields["cpu_s"] = max(0.0, ran_until - terms.started_at) * terms.cpu
        fields["cpu_method"] = f"estimate: all its time, on {terms.cpu} cores"
    return fields
