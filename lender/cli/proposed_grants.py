"""What is proposed to the owner, for `lender grants`: agreed to as it stands, or not.

Standard library only; what `lender grant` loads besides only where something is proposed.
"""

import re
from collections.abc import Iterable
from typing import Any

from lender.cli.consent_words import terms
from lender.cli.exits import CommandError
from lender.cli.proposals import LASTING, ProposalError, agreed, found, read_words
from lender.cli.words import key, printable
from lender.core.consent import Grant
from lender.state.consent_files import ConsentReading
from lender.state.folder import StateFolder
from lender.state.programs import Programs


def listed_proposals(
    state: StateFolder, reading: ConsentReading, programs: Programs, now: float
) -> list[dict[str, Any]]:
    """Return each as JSON values, with its state: agreed, proposed, or faulty and why."""
    listed: list[dict[str, Any]] = []
    holding = reading.consent.valid(now)
    for path in found(state):
        named = {"name": path.stem, "path": str(path)}
        try:
            fields = _of_proposal(read_words(path), reading, programs, holding)
        except (ProposalError, CommandError) as error:
            fields = {"state": "faulty", "reason": str(error)}
        listed.append({**named, **fields})
    return listed


def _of_proposal(
    words: list[str], reading: ConsentReading, programs: Programs, holding: Iterable[Grant]
) -> dict[str, Any]:
    from lender.cli.grant import options_of, wanted  # noqa: PLC0415 - seldom needed, and slow

    grant, name = wanted(options_of(words), reading, programs)
    expires = next(one for one in words if one.startswith("--expires=")).partition("=")[2]
    same = agreed(grant, expires, holding)
    beside = [
        one.id
        for one in holding
        if (one.submitter, one.workload) == (grant.submitter, grant.workload)
    ]
    return {
        "state": "proposed" if same is None else "agreed",
        "grant": None if same is None else same.id,
        "beside": beside,
        "submitter": grant.submitter,
        "submitter_name": name,
        "workload": grant.workload,
        "terms": terms(grant),
        "expires": expires,
    }


def ask_lines(proposed: Iterable[dict[str, Any]]) -> list[str]:
    """Say what the owner has not agreed to; what they have is among the grants."""
    lines: list[str] = []
    for one in proposed:
        if one["state"] == "faulty":
            lines.append(f"! proposed, and can't be asked: {one['path']}: {one['reason']}")
        elif one["state"] == "proposed":
            who = one["submitter_name"] or key(one["submitter"])
            beside = f" beside {', '.join(one['beside'])}" if one["beside"] else ""
            lasting = re.fullmatch(LASTING, one["expires"]) is not None
            end = f"for {one['expires']} from your yes on" if lasting else f"until {one['expires']}"
            lines += [
                f"? proposed to you{beside}: {who}: {one['workload']}, {end}",
                f"    {one['terms']}",
                f"    nothing runs by it before you agree: lender grant --proposed {one['name']}",
            ]
    return [printable(line) for line in lines]
