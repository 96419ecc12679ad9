"""Takes nothing new and lets what runs finish: `lender drain` and `lender pause --finish`."""

import time
from typing import Any

from lender.cli.exits import Exit
from lender.cli.last_word import announce_pause, as_json, keep
from lender.cli.owner import become_owner, tell
from lender.cli.words import count, key, printable, when
from lender.sandbox.processes import tree
from lender.state.attempt_records import AttemptRecords
from lender.state.folder import ATTEMPTS, StateFolder
from lender.state.intent_file import StoredIntent


def let_finish(state: StateFolder, intent: StoredIntent) -> dict[str, Any]:
    """Keep and tell the word; return what was done and what still runs."""
    become_owner(state)
    not_saved = keep(state, intent)
    told = announce_pause(state, intent)
    return {**as_json(state, intent, not_saved, told), "running": running(state)}


def running(state: StateFolder) -> list[dict[str, Any]]:
    """What runs by lenderd's word, or by the records of it that are alive.

    So does what has ended and whose checkpoint is on its way: lost if the machine went off now.
    """
    told = tell(state, "status")
    if told.outcome == "answered":
        names = {g["submitter"]: g["name"] for g in told.reply.get("grants", []) if g.get("name")}
        return [
            {
                "lease": one.get("lease"),
                "job": one.get("job"),
                "job_name": one.get("job_name", ""),
                "submitter": one.get("submitter"),
                "name": names.get(one.get("submitter"), ""),
            }
            for kind in ("running", "saving")
            for one in told.reply.get(kind, [])
        ]
    return [
        {"lease": r.lease, "job": r.job, "job_name": "", "submitter": r.submitter, "name": ""}
        for r in AttemptRecords(state.inside(ATTEMPTS)).read_all().records
        if any(tree.alive(root) for root in r.roots)
    ]


def exit_of(outcome: dict[str, Any]) -> Exit:
    """Tell whether it holds: saved, and heard by a lenderd that runs."""
    if outcome["daemon"] == "refused" and not outcome["obeyed"]:
        return Exit.FAILED
    if outcome["not_saved"] or outcome["daemon"] == "refused":
        return Exit.PARTIAL
    return Exit.DONE if outcome["daemon"] in ("answered", "absent") else Exit.UNREACHABLE


def lines(outcome: dict[str, Any]) -> list[str]:
    """Say what was done, what still runs, and until when."""
    now = time.time()
    left = outcome["running"]
    ending = when(outcome["finish_by"], now)
    refused = outcome["daemon"] == "refused"
    said = ["✓ nothing new is taken"]
    if refused and not outcome["obeyed"]:
        said = ["✗ lenderd goes on as before"]
    elif left:
        jobs = count(len(left), "job")
        said = [f"✓ nothing new is taken; {jobs} may go on until {ending}"]
        said += [f"  Running  {_job(one)}" for one in left]
    elif refused or outcome["daemon"] in ("answered", "absent"):
        said = ["✓ nothing new is taken; nothing runs"]
    if outcome["not_saved"]:
        said.append(f"! it could not be saved ({outcome['not_saved']}): a restart ends it")
    if outcome["daemon"] == "absent":
        said.append("! lenderd does not run; it will start paused.")
    elif refused:
        said.append(f"! lenderd reports a fault: {outcome['daemon_reason']}")
        if not outcome["obeyed"]:
            return [*said, "  To stop its work now: lender pause"]
    elif outcome["daemon"] != "answered":
        said.append(
            f"! lenderd gave no answer ({outcome['daemon_reason']}): it obeys when it wakes. "
            "To stop its work now: lender pause"
        )
    said.append(after(outcome))
    return said


def after(outcome: dict[str, Any]) -> str:
    """Say what follows."""
    if outcome["until"] is not None:
        return f"Lending goes on by itself: {when(outcome['until'], time.time())}."
    return "It stays so until you type `lender resume`."


def _job(one: dict[str, Any]) -> str:
    name = f'  "{printable(str(one["job_name"]))}"' if one["job_name"] else ""
    return f"{one['job']}{name}  for {one['name'] or key(str(one['submitter']))}"
