"""Keeps the owner's last word on lending and tells lenderd: for pause, drain and resume.

Standard library only. The word is a level, not an event: a later one replaces it whole.
"""

from typing import Any

from lender.cli.owner import Told, tell
from lender.state.folder import INTENT, StateFolder
from lender.state.intent_file import StoredIntent, write_stored


def keep(state: StateFolder, intent: StoredIntent) -> str:
    """Save it on this machine; return why that could not be done, empty where it was."""
    try:
        write_stored(state, intent)
    except OSError as error:
        return f"{state.inside(INTENT)}: {error.strerror or error}"
    return ""


def announce_pause(state: StateFolder, intent: StoredIntent) -> Told:
    """Have lenderd carry it out, also where it could not be saved."""
    fields = intent._asdict()
    del fields["paused"]
    return tell(state, "pause", fields={"intent": fields})


def obeyed(state: StateFolder, told: Told) -> bool:
    """Whether lenderd holds to a pause: what it could not save it obeys all the same."""
    if told.outcome != "refused":
        return told.outcome == "answered"
    asked = tell(state, "status")
    return asked.outcome == "answered" and asked.reply.get("paused") is True


def as_json(state: StateFolder, intent: StoredIntent, not_saved: str, told: Told) -> dict[str, Any]:
    """The fields that every answer of a pause or a drain has."""
    return {
        "state": state.name,
        "obeyed": obeyed(state, told),
        "until": intent.until,
        "finish_by": intent.finish_by,
        "not_saved": not_saved,
        "daemon": told.outcome,
        "daemon_reason": told.reason,
    }
