"""What the machine and its owner say about themselves: one reading of all sensors.

A reading is the daemon's whole knowledge of the outside: what could not be read is None or the
value that errs on the owner's side, and says so in its docstring.
"""

from dataclasses import dataclass, field
from typing import Literal

PresenceState = Literal["present", "idle", "away"]


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether somebody is at the machine.

    Attributes:
        idle_s: seconds since the last input of anybody; None: no source can tell.
        locked: the session's screen is locked; None: no source can tell.
        desktop: somebody could sit here: a graphical session, or a console with a keyboard.
        remote_sessions: people logged in from elsewhere who were active within `idle_s`' sense.
        sources: which source answered, for `lender status`: `("mutter",)`, `()` for none.
    """

    idle_s: float | None = None
    locked: bool | None = None
    desktop: bool = False
    remote_sessions: int = 0
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuSignal:
    """One GPU.

    Attributes:
        id: UUID.
        vram_free_bytes: what could be allocated now.
        vram_others_bytes: held by processes that are not ours.
        use_others: share of the time that it computed for others, 0 to 1; time that can't be
            told apart counts as theirs.
        carries_lent: some of ours uses it, or runs while nobody can tell who uses it.
    """

    id: str
    vram_free_bytes: int
    vram_others_bytes: int = 0
    use_others: float = 0.0
    carries_lent: bool = False


@dataclass(frozen=True, slots=True)
class OutsideReading:
    """What was heard of one of the owner's conditions.

    Attributes:
        name: of the condition.
        value: a number or a short text, as the condition asks; None: it is not known.
        fault: why it is not, in words.
    """

    name: str
    value: float | str | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Signals:
    """One reading of all sensors.

    Attributes:
        cpu_others: cores kept busy by processes that are not ours, 0 to the number of cores.
        memory_available_bytes: what could be used without swapping.
        swap_in_bytes_per_s: read back from swap by anybody; 0 where it can't be read.
        pressure_cpu, pressure_memory, pressure_io: percent of the time that some process waited
            for it (PSI `some`), without what our own work causes; None: the kernel has no PSI.
        gpus: one entry per GPU.
        temperature_c: the hottest sensor that has a limit; None: no such sensor.
        temperature_limit_c: the limit of that sensor.
        throttled: the machine slows itself down for heat or power right now.
        on_battery: not on mains.
        battery: charge, 0 to 1; None: no battery.
        presence: whether somebody is there.
        inhibited_by: who asked the desktop to stay awake (a film, a call); empty: nobody.
        game: a game told GameMode that it plays.
        exclusive_app: a program of the owner's list that runs; empty: none.
        metered: the network is paid by volume.
        utc_offset_s: of the owner's local time.
        joules_per_cpu_s: energy that a second of CPU time takes now.
        energy_method: where that figure comes from, in words.
        outside: what the house says, where the owner asks for it: one for each condition.
    """

    cpu_others: float
    memory_available_bytes: int
    swap_in_bytes_per_s: float = 0.0
    pressure_cpu: float | None = None
    pressure_memory: float | None = None
    pressure_io: float | None = None
    gpus: tuple[GpuSignal, ...] = ()
    temperature_c: float | None = None
    temperature_limit_c: float | None = None
    throttled: bool = False
    on_battery: bool = False
    battery: float | None = None
    presence: Presence = field(default_factory=Presence)
    inhibited_by: str = ""
    game: bool = False
    exclusive_app: str = ""
    metered: bool = False
    utc_offset_s: int = 0
    joules_per_cpu_s: float = 0.0
    energy_method: str = "not measurable"
    outside: tuple[OutsideReading, ...] = ()

    @property
    def energy_measured(self) -> bool:
        """Whether anything tells what lent work's CPU time takes, be it an estimate."""
        return self.joules_per_cpu_s > 0

    @property
    def vram_free_bytes(self) -> int:
        """The free memory of the GPU that has the most of it; 0 without one."""
        return max((gpu.vram_free_bytes for gpu in self.gpus), default=0)

    @property
    def vram_left_bytes(self) -> int | None:
        """What lent work leaves free: the least on any GPU that carries some; None without a GPU.

        Where none does, the most on any: there the next one would go.
        """
        lent = [gpu.vram_free_bytes for gpu in self.gpus if gpu.carries_lent]
        return min(lent) if lent else self.vram_free_bytes if self.gpus else None
