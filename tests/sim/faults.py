"""What goes wrong, as it was planned: each fault begins at its time and ends by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from sim.broker_shell import BrokerShell
from sim.lender_shell import LenderShell

if TYPE_CHECKING:
    from sim.simulation import Simulation

SLEEP_GRACE_S = 4.0
WOKEN_S = 0.4


class FaultPlan(NamedTuple):
    """A fault: `kind` names one of `FAULTS`; `target` a lender, where it concerns one."""

    at: float
    kind: str
    target: int = 0
    for_s: float = 0.0
    amount: float = 0.0


Fault = Callable[["Simulation", FaultPlan], None]


def _later(sim: "Simulation", delay_s: float, call: Callable[[], None]) -> None:
    sim.world.at(sim.world.now + delay_s, sim.world.fate, call)


def _shell(sim: "Simulation", plan: FaultPlan) -> LenderShell:
    return sim.shells[plan.target % len(sim.shells)]


# the network and the server


def _loss(sim: "Simulation", plan: FaultPlan) -> None:
    weather = sim.server.weather
    weather.loss += plan.amount
    weather.twice += plan.amount

    def end() -> None:
        weather.loss = max(0.0, weather.loss - plan.amount)
        weather.twice = max(0.0, weather.twice - plan.amount)

    _later(sim, plan.for_s, end)


def _slow(sim: "Simulation", plan: FaultPlan) -> None:
    weather = sim.server.weather
    weather.slow_s += plan.amount

    def end() -> None:
        weather.slow_s = max(0.0, weather.slow_s - plan.amount)

    _later(sim, plan.for_s, end)


def _cut_lender(sim: "Simulation", plan: FaultPlan) -> None:
    _shell(sim, plan).line.cut(plan.for_s)


def _silence_lender(sim: "Simulation", plan: FaultPlan) -> None:
    _shell(sim, plan).line.silence(plan.for_s)


def _cut_broker(sim: "Simulation", plan: FaultPlan) -> None:
    _broker(sim, plan).line.cut(plan.for_s)


def _silence_broker(sim: "Simulation", plan: FaultPlan) -> None:
    _broker(sim, plan).line.silence(plan.for_s)


def _server_crash(sim: "Simulation", plan: FaultPlan) -> None:
    if sim.server.alive:
        sim.server.crash()
        _later(sim, plan.for_s, sim.server.restart)


# the broker


def _broker(sim: "Simulation", plan: FaultPlan) -> BrokerShell:
    """Mostly the one that leads."""
    leading = [one for one in sim.brokers if one.service is not None and one.service.leads]
    return (leading or sim.brokers)[plan.target % len(leading or sim.brokers)]


def _broker_crash(sim: "Simulation", plan: FaultPlan) -> None:
    broker = _broker(sim, plan)
    if broker.alive:
        broker.crash()


def _broker_stall(sim: "Simulation", plan: FaultPlan) -> None:
    broker = _broker(sim, plan)
    if not broker.alive or broker.suspended:
        return
    life = broker.life
    broker.suspend()

    def go_on() -> None:
        if broker.life == life:
            broker.resume()

    _later(sim, plan.for_s, go_on)


def _broker_clock(sim: "Simulation", plan: FaultPlan) -> None:
    _broker(sim, plan).wall_ahead_s += plan.amount


def _second_broker(sim: "Simulation", plan: FaultPlan) -> None:
    """Another one is started, which stands by or takes over; and is stopped."""
    if not sim.scenario.standby:
        sim.brokers[1].start()
        _later(sim, plan.for_s, sim.brokers[1].stop)


# a lender


def _lender_crash(sim: "Simulation", plan: FaultPlan) -> None:
    shell = _shell(sim, plan)
    if shell.alive and not shell.machine.asleep:
        shell.crash()


def _lender_stall(sim: "Simulation", plan: FaultPlan) -> None:
    shell = _shell(sim, plan)
    if not shell.alive or shell.suspended:
        return
    life = shell.life
    shell.suspend()

    def go_on() -> None:
        if shell.life == life and not shell.machine.asleep:
            shell.resume()

    _later(sim, plan.for_s, go_on)


def _sleep(sim: "Simulation", plan: FaultPlan) -> None:
    shell = _shell(sim, plan)
    if plan.amount and shell.alive and not shell.suspended:
        shell.on_let_sleep = lambda: _fall_asleep(sim, shell, plan.for_s)
        _later(sim, SLEEP_GRACE_S, lambda: _fall_asleep(sim, shell, plan.for_s))
        shell.announce_sleep()
    else:
        shell.on_let_sleep = lambda: None
        _fall_asleep(sim, shell, plan.for_s, announced=False)


def _fall_asleep(
    sim: "Simulation", shell: LenderShell, for_s: float, *, announced: bool = True
) -> None:
    machine = shell.machine
    if machine.asleep or (announced and shell.on_let_sleep is _stay_awake):
        return
    shell.on_let_sleep = _stay_awake
    machine.asleep = True
    machine.suspend()
    shell.suspend()
    shell.line.silence(for_s)
    sim.world.note(machine.name, "sleeps")
    life = shell.life

    def wake() -> None:
        machine.asleep = False
        machine.resume()
        sim.world.note(machine.name, "wakes")
        if shell.life == life and shell.alive:
            shell.resume()
            shell.after(sim.chance.uniform(0, WOKEN_S), shell.woken, for_s)

    _later(sim, for_s, wake)


def _stay_awake() -> None:
    """Nobody waits for the lender to let the machine sleep."""


def _lender_clock(sim: "Simulation", plan: FaultPlan) -> None:
    machine = _shell(sim, plan).machine
    machine.wall_ahead_s += plan.amount
    machine.clock_set_at = sim.world.now


def _busy(sim: "Simulation", plan: FaultPlan) -> None:
    shell = _shell(sim, plan)
    setattr(shell.machine, "short" if plan.amount else "busy", True)
    _sampled(shell)

    def end() -> None:
        setattr(shell.machine, "short" if plan.amount else "busy", False)

    _later(sim, plan.for_s, end)


def _sampled(shell: LenderShell) -> None:
    if shell.alive and not shell.suspended:
        shell.after(0.0, shell.sample)


def _sandbox_dies(sim: "Simulation", plan: FaultPlan) -> None:
    machine = _shell(sim, plan).machine
    boxes = list(machine.sandboxes.values())
    if boxes and not machine.asleep:
        machine.kill(sim.chance.choice(boxes), "killed from outside")


def _unkillable(sim: "Simulation", plan: FaultPlan) -> None:
    machine = _shell(sim, plan).machine
    for box in machine.sandboxes.values():
        if not box.dead:
            machine.stick(box)
    _later(sim, plan.for_s, machine.unstick)


def _gpu_gone(sim: "Simulation", plan: FaultPlan) -> None:
    machine = _shell(sim, plan).machine
    machine.lose_gpu()

    def back() -> None:
        machine.gpu_there = machine.has_gpu

    _later(sim, plan.for_s, back)


def _disk_full(sim: "Simulation", plan: FaultPlan) -> None:
    disk = _shell(sim, plan).machine.disk
    disk.full = True

    def end() -> None:
        disk.full = False

    _later(sim, plan.for_s, end)


FAULTS: dict[str, Fault] = {
    "messages are lost and doubled": _loss,
    "messages are late": _slow,
    "a lender's line is cut": _cut_lender,
    "a lender's line is silent": _silence_lender,
    "the broker's line is cut": _cut_broker,
    "the broker's line is silent": _silence_broker,
    "the server crashes": _server_crash,
    "the broker crashes": _broker_crash,
    "the broker stands still": _broker_stall,
    "the broker's clock jumps": _broker_clock,
    "a second broker is started": _second_broker,
    "lenderd crashes": _lender_crash,
    "lenderd stands still": _lender_stall,
    "a laptop sleeps": _sleep,
    "a lender's clock jumps": _lender_clock,
    "a machine is needed": _busy,
    "a sandbox dies": _sandbox_dies,
    "sandboxes can't be killed": _unkillable,
    "a GPU vanishes": _gpu_gone,
    "a disk is full": _disk_full,
}
