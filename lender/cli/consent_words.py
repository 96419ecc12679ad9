"""What a grant allows, in plain words: the same where the owner agrees and where grants are listed.

Standard library only.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lender.cli.owner import tell
from lender.cli.words import count, moment, printable, size
from lender.core.budget import bounds_energy
from lender.core.consent import Grant
from lender.protocol.devices import KNOWN
from lender.protocol.reach import in_words
from lender.service.workload_folders import installed_workloads, own_workloads
from lender.state.folder import StateFolder
from lender.state.programs import Programs, read_programs


def terms(grant: Grant) -> str:
    """All of it but program and end, in one line: `each task 4 cores and 2 GiB of memory, …`."""
    return f"each task {_per_task(grant)}; {_in_all(grant)}"


def agreement(grant: Grant, name: str, programs: Programs, others: Iterable[str]) -> str:
    """What the owner agrees to, in full.

    Args:
        grant: what would be written.
        name: what the owner calls the submitter; empty for nothing.
        programs: the machine's catalogue.
        others: sentences on grants that the submitter has for this workload already.
    """
    who = f"{name} ({grant.submitter})" if name else grant.submitter
    lines = [
        who,
        f"may run the workload {grant.workload} on this machine in a sandbox, {_in_all(grant)};",
        f"each task with at most {_per_task(grant)}. It cannot read your files.",
        *_devices(grant),
        *_network(grant),
        _program(grant, programs),
        f"Ends {moment(grant.not_after)}. Withdraw any time: lender revoke.",
        *others,
    ]
    return "\n".join(lines)


def _per_task(grant: Grant) -> str:
    vram = grant.vram_bytes
    gpu = f"a GPU with {size(vram)} of its memory" if vram else "no GPU"
    cores = f"{count(grant.cpu, 'core')} and {size(grant.memory_bytes)} of memory"
    metered = ", also paid by volume" if grant.net and grant.net_metered else ""
    devices = "".join(f", {_device(name)}" for name in grant.devices)
    return f"{cores}, {gpu}{devices}, {in_words(grant.net)}{metered}"


def _device(name: str) -> str:
    return KNOWN.get(name, name)


def _devices(grant: Grant) -> list[str]:
    if not grant.devices:
        return []
    return [
        f"A job that asks for {' or '.join(grant.devices)} uses it itself, through its driver, one",
        "job at a time; meanwhile programs of yours may not get it. Nobody wipes its memory.",
    ]


def _network(grant: Grant) -> list[str]:
    if not grant.net:
        return []
    return [
        "What it does on the network it does from your address, if its job asks for it, in any",
        "protocol. It reaches nothing of your own network or of this machine.",
        f"It has it {'also' if grant.net_metered else 'not'} while the network is paid by volume.",
    ]


def _in_all(grant: Grant) -> str:
    parts = [grant.when.text, *(f"at most {bound.text}" for bound in grant.budget)]
    if bounds_energy(grant.budget):
        parts.append("nothing while energy can't be measured")
    return ", ".join(parts)


def energy_warnings(grant: Grant, state: StateFolder) -> list[str]:
    """What an owner has to know of a bound in kWh before they agree; without one nothing."""
    if not bounds_energy(grant.budget):
        return []
    machine = tell(state, "status").reply.get("machine")
    told: Mapping[str, Any] = machine if isinstance(machine, dict) else {}
    measured, method = told.get("energy_measured"), printable(str(told.get("energy_method")))
    if measured is True:
        return [f"Energy is measured here now ({method})."]
    doubt = "! This machine can't measure energy now: nothing would run under this grant."
    if measured is None:
        doubt = (
            "! Only lenderd knows whether this machine can measure energy, and it gives no answer: "
            "if not, nothing runs under this grant."
        )
    mend = (
        "! Say what a busy core takes (watts_per_core in lenderd.toml), "
        "or bound CPU hours instead: --budget 10cpuh/day."
    )
    return [doubt, mend]


def _program(grant: Grant, programs: Programs) -> str:
    known = programs.get(grant.workload)
    only = f"It runs only the program sha256:{grant.digest}"
    if grant.digest is None:
        said = "It runs whatever program comes with the job."
    elif known in (None, grant.digest):
        said = f"{only}; a changed one asks you again."
    else:
        return f"{only}, and this machine knows another as {grant.workload}: so far nothing runs."
    if grant.workload in programs:
        return said
    unknown = f"lenderd knows no workload {grant.workload}: so far nothing runs"
    return f"{said}\n! {unknown} (see lender workloads --help)."


def changed(grant: Grant, programs: Programs) -> bool:
    """Whether the workload's program is not the one any more that the owner agreed to."""
    known = programs.get(grant.workload)
    return known is not None and grant.digest not in (None, known)


def known_programs(state: StateFolder) -> Programs:
    """Return the catalogue that lenderd uses, or without it what it most probably will."""
    reply: Mapping[str, Any] = tell(state, "status").reply
    told = reply.get("workloads")
    if isinstance(told, dict):
        return told
    named = os.environ.get("LENDERD_WORKLOADS")
    return own_programs() | read_programs(Path(named) if named else installed_workloads())


def own_programs() -> Programs:
    """Return the workloads that this user has described."""
    folder = own_workloads()
    return {} if folder is None else read_programs(folder)
