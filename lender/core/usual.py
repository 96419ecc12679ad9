"""The limits of an owner who has set none: what a laptop's owner never notices.

With somebody there a quarter of the cores is lent at most, and little of anything makes lent
work step back. Without anybody the whole machine is lent until something else needs it, or it
would drain a battery, get hot or cost money. A stay is shorter than the time after which frozen
work is handed back, so that a single busy reading costs nobody's work; about two seconds of them
already do. The numbers are argued in docs/decisions/0006.
"""

from lender.core.policy import Limits, Policy, Rung, Steps, Threshold

_KIB = 1 << 10
_MIB = 1 << 20
_GIB = 1 << 30
_MEMORY_KEPT = Threshold(_GIB, _GIB + _GIB // 4)
_VRAM_KEPT_AWAY = Threshold(_GIB // 2, _GIB // 2 + _GIB // 8)


def usual_policy(cores: float) -> Policy:
    """Return the defaults for a machine of so many cores that people work at."""
    return Policy(in_use=_in_use(cores), away=_away(cores))


def dedicated_policy() -> Policy:
    """Return the defaults for a machine that nobody works at and that only lends.

    The memory that it needs itself is kept, and it steps back before it overheats.
    """
    limits = Limits(
        memory_kept_bytes=_MEMORY_KEPT,
        temperature_c=Steps(reduced=Threshold(-5, -10), frozen=Threshold(0, -5)),
    )
    return Policy(in_use=limits, away=limits)


def _in_use(cores: float) -> Limits:
    return Limits(
        cores=max(0.5, cores / 4),
        cpu_others=Steps(reduced=_a_quarter(cores), frozen=Threshold(cores / 2, cores * 3 / 8)),
        pressure_cpu=Steps(reduced=Threshold(10, 5), frozen=Threshold(40, 20)),
        pressure_memory=Steps(frozen=Threshold(2, 1), evicted=Threshold(10, 5)),
        pressure_io=Steps(reduced=Threshold(10, 5), frozen=Threshold(30, 15)),
        memory_kept_bytes=_MEMORY_KEPT,
        vram_kept_bytes=_MEMORY_KEPT,
        swap_in_bytes_per_s=Steps(evicted=Threshold(_MIB, 256 * _KIB)),
        gpu_others=Steps(reduced=Threshold(0.2, 0.1), frozen=Threshold(0.5, 0.3)),
        temperature_c=Steps(reduced=Threshold(-20, -25), frozen=Threshold(-10, -15)),
        throttled=Rung.FROZEN,
        on_battery=Rung.FROZEN,
        game=Rung.FROZEN,
        exclusive_app=Rung.FROZEN,
        inhibited=Rung.FROZEN,
        metered=False,
        stay_s=8.0,
    )


def _away(cores: float) -> Limits:
    return Limits(
        cpu_others=Steps(reduced=_a_quarter(cores), frozen=Threshold(cores * 3 / 4, cores / 2)),
        pressure_cpu=Steps(reduced=Threshold(30, 20), frozen=Threshold(70, 50)),
        pressure_memory=Steps(frozen=Threshold(10, 5), evicted=Threshold(25, 10)),
        pressure_io=Steps(reduced=Threshold(30, 15), frozen=Threshold(60, 40)),
        memory_kept_bytes=_MEMORY_KEPT,
        vram_kept_bytes=_VRAM_KEPT_AWAY,
        swap_in_bytes_per_s=Steps(evicted=Threshold(8 * _MIB, 2 * _MIB)),
        gpu_others=Steps(frozen=Threshold(0.5, 0.3)),
        temperature_c=Steps(reduced=Threshold(-10, -15), frozen=Threshold(-5, -10)),
        throttled=Rung.FROZEN,
        on_battery=Rung.FROZEN,
        game=Rung.FROZEN,
        exclusive_app=Rung.FROZEN,
        metered=False,
        stay_s=5.0,
    )


def _a_quarter(cores: float) -> Threshold:
    """Of the cores; on a small machine enough for what an open desktop does by itself."""
    at = min(max(cores / 4, 0.75), cores / 2)
    return Threshold(at, 0.75 * at)
