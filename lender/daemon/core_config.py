"""What the core is told once, from the settings and from what the machine has."""

from collections.abc import Mapping
from pathlib import Path

import psutil

from lender.core.admission import CatalogueEntry
from lender.core.budget import Budget, parse_budget
from lender.core.config import Config
from lender.daemon.settings import DaemonSettings
from lender.sensors import memory
from lender.service.workload_folders import installed_workloads


class StartError(Exception):
    """lenderd can't go on; the message says what to mend."""


def core_config(
    settings: DaemonSettings, public_key: str, workloads: Mapping[str, CatalogueEntry]
) -> Config:
    """Return the core's settings.

    Raises:
        StartError: one of them means nothing.
    """
    cores = machine_cores()
    policy = settings.policy.policy(
        cores,
        reserve_memory_bytes=settings.reserve_memory_bytes,
        yield_cpu_others=settings.yield_cpu_others,
    )
    if settings.mqtt is not None:
        policy = policy.under(settings.mqtt.conditions())
    return Config(
        lender=public_key,
        name=settings.name,
        pools=tuple(settings.pools),
        labels=tuple(settings.labels),
        workloads=workloads,
        cores=cores,
        slots=settings.slots or max(1, int(cores) - 1),
        memory_bytes=memory.total_bytes(),
        disk_kept_bytes=settings.reserve_disk_bytes,
        policy=policy,
        budget=_budget(settings.budget),
        frozen_handback_s=settings.frozen_handback_s,
        processes_max=settings.processes_max,
    )


def catalogue_folder(settings: DaemonSettings) -> Path:
    """Return where the workload catalogue lies.

    Raises:
        StartError: there is none.
    """
    if settings.workloads is not None:
        return settings.workloads
    found = installed_workloads()
    if not found.is_dir():
        raise StartError(f"no workload catalogue at {found}: set `workloads` (LENDERD_WORKLOADS)")
    return found


def machine_cores() -> float:
    """Return how many cores the machine has."""
    return float(psutil.cpu_count() or 1)


def _budget(texts: list[str]) -> Budget:
    try:
        return parse_budget(texts)
    except ValueError as error:
        raise StartError(f"setting `budget`: {error}") from error
