"""What the control socket answers to `status`: the core's view as JSON values."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lender.core.consent import Intent
from lender.core.policy import Finding, Verdict
from lender.core.signals import Signals
from lender.core.status import AttemptStatus, LenderStatus


def lending(status: LenderStatus, now: float, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return phase, reason, slots, what runs, comfort and machine.

    Args:
        status: of the core.
        now: seconds since the epoch, by the core's clock; what is returned goes by the wall's.
        machine: its cores and memory.
    """
    return {
        "phase": status.phase,
        "reason": status.reason,
        "slots_total": status.slots_total,
        "slots_free": status.slots_free,
        "running": [_running(one, status.behind_s) for one in status.attempts],
        "saving": [_running(one, status.behind_s) for one in status.saving],
        "warm": [{"job": job, "sandboxes": n} for job, n in Counter(status.warm).items()],
        "headroom": {"cpu": status.cpu_free, "memory_bytes": status.memory_free_bytes},
        **_intent(status.intent, now - status.behind_s),
        "comfort": _comfort(status.verdict, status.signals, status.behind_s),
        "machine": {**machine, **_machine(status.signals)},
    }


def _running(one: AttemptStatus, behind_s: float) -> dict[str, Any]:
    return {
        "lease": one.lease,
        "job": one.job,
        "job_name": one.job_name,
        "submitter": one.submitter,
        "workload": one.workload,
        "runtime": one.runtime,
        "grant": one.grant,
        "attempt": one.attempt,
        "state": one.state,
        "tasks_done": one.tasks_total - one.tasks_left,
        "tasks_total": one.tasks_total,
        "since": one.started_at - behind_s,
        "cpu": one.cpu,
        "memory_bytes": one.memory_bytes,
        "gpu": one.gpu,
        "devices": list(one.devices),
        "cpu_s": one.cpu_s,
        "memory_peak_bytes": one.memory_peak_bytes,
        "network": list(one.network),
        "network_in_bytes": one.network_in_bytes,
        "network_out_bytes": one.network_out_bytes,
        "network_attempts_blocked": one.network_attempts_blocked,
        "held": one.held,
    }


def _intent(intent: Intent | None, now: float) -> dict[str, Any]:
    if intent is None:
        return {}
    return {
        "paused": intent.holds(now),
        "paused_at": intent.paused_at,
        "paused_until": intent.until,
        "finish_by": intent.finish_by,
        "paused_by": intent.said_by,
        "paused_by_mqtt": intent.by_mqtt,
    }


def _comfort(verdict: Verdict, signals: Signals | None, behind_s: float) -> dict[str, Any]:
    climbs_at = None if verdict.climbs_at is None else verdict.climbs_at - behind_s
    comfort: dict[str, Any] = {
        "rung": verdict.rung.name.lower(),
        "cores": verdict.cores,
        "presence": verdict.presence,
        "reason": verdict.reason,
        "figures": verdict.figures,
        "new_work": verdict.new_work,
        "gpu_work": verdict.gpu_work,
        "climbs_at": climbs_at,
        "findings": [_finding(one) for one in verdict.findings],
    }
    if signals is not None:
        presence = signals.presence
        comfort |= {
            "idle_s": presence.idle_s,
            "locked": presence.locked,
            "desktop": presence.desktop,
            "remote_sessions": presence.remote_sessions,
            "sources": list(presence.sources),
        }
    return comfort


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "signal": finding.signal,
        "rung": finding.rung.name.lower(),
        "text": finding.text,
        "value": finding.value,
        "limit": finding.limit,
        "clears_at": finding.clears_at,
    }


def _machine(signals: Signals | None) -> dict[str, Any]:
    if signals is None:
        return {}
    return {
        "memory_available_bytes": signals.memory_available_bytes,
        "cpu_others": signals.cpu_others,
        "energy_measured": signals.energy_measured,
        "energy_method": signals.energy_method,
        "gpus": [
            {
                "id": gpu.id,
                "vram_free_bytes": gpu.vram_free_bytes,
                "vram_others_bytes": gpu.vram_others_bytes,
                "use_others": gpu.use_others,
            }
            for gpu in signals.gpus
        ],
    }
