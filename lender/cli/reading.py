"""What `status`, `why` and `top` show: lenderd's answer, or what the files tell without it.

Standard library only, and little of it: lenderd being there is the common case.
"""

import time
from typing import Any, NamedTuple

from lender.cli.owner import Told, become_owner, is_owner, tell
from lender.state.folder import ATTEMPTS, StateFolder

Fields = dict[str, Any]


class Reading(NamedTuple):
    """One answer, with how it came.

    Attributes:
        told: how lenderd took the question.
        fields: of its `status` (see lender.daemon.control); fewer where the files had to do.
    """

    told: Told
    fields: Fields

    @property
    def answered(self) -> bool:
        """Whether lenderd itself says so."""
        return self.told.outcome == "answered"


def read_status(state: StateFolder) -> Reading:
    """Ask lenderd; where it does not answer, its owner reads the files.

    Raises:
        CommandError: there is no such state folder.
    """
    owner = is_owner(state)
    told = tell(state, "status")
    if told.outcome == "answered":
        fields = dict(told.reply)
        del fields["ok"]
        until = fields.get("paused_until")
        if until is not None and until <= time.time():
            fields["paused"] = False
        return Reading(told, fields)
    fields = {"phase": "offline", "reason": _why(told), "connected": False}
    return Reading(told, {**fields, **_from_files(state)} if owner else fields)


def names_of(fields: Fields) -> dict[str, str]:
    """What the owner calls the submitters, by public key."""
    listed = [*fields.get("grants", []), *fields.get("withdrawn", [])]
    return {one["submitter"]: one["name"] for one in listed if one.get("name")}


def _from_files(state: StateFolder) -> Fields:
    # Only needed here; loaded before root becomes an owner who may not read our own code.
    from lender.cli import grants  # noqa: PLC0415
    from lender.sandbox.processes import tree  # noqa: PLC0415
    from lender.state.attempt_records import AttemptRecords  # noqa: PLC0415
    from lender.state.consent_files import load_consent, read_intent  # noqa: PLC0415

    become_owner(state)
    reading, now = load_consent(state), time.time()
    intent = read_intent(state)
    held = reading.consent.valid(now)
    holders = {grant.submitter for grant in held}
    return {
        "paused": intent.holds(now),
        "paused_at": intent.paused_at,
        "paused_until": intent.until,
        "finish_by": intent.finish_by,
        "paused_by": intent.said_by,
        "paused_by_mqtt": intent.by_mqtt,
        "grants": [grants.entry(grant, reading, now) for grant in held],
        "withdrawn": [
            {"submitter": key, "name": reading.names.get(key, "")}
            for key in sorted(
                {g.submitter for g in reading.consent.grants if g.id in reading.consent.revoked}
                - holders
            )
        ],
        "ignored_grants": grants.ignored(reading),
        "running": [
            {
                "lease": attempt.lease,
                "job": attempt.job,
                "submitter": attempt.submitter,
                "workload": attempt.workload,
            }
            for attempt in AttemptRecords(state.inside(ATTEMPTS)).read_all().records
            if any(tree.alive(root) for root in attempt.roots)
        ],
    }


def _why(told: Told) -> str:
    if told.outcome == "absent":
        return "lenderd does not run"
    return f"lenderd does not answer ({told.reason})"
