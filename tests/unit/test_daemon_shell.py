"""The shell and the core stay in step, whatever the disk does."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from core_world import ALICE, lease_id, make_lease, make_spec

from lender.core.consent import Consent, Intent
from lender.core.effects import (
    AbandonCheckpoint,
    CloseSandbox,
    Effect,
    FreezeSandbox,
    OpenSandbox,
    SendReport,
    ThawSandbox,
)
from lender.core.events import ConsentLoaded, Event, TimeAdvanced
from lender.daemon.shell import Shell
from lender.protocol.lease import Done
from lender.sandbox.processes.tree import StopReport
from lender.state.consent_files import write_intent
from lender.state.folder import StateFolder

REPORT = Done(lease=lease_id(1), job="job-00001", submitter="U" + "A" * 55, final=True)


class Script:
    """A core that asks for what a test wants."""

    def __init__(self, effects: list[Effect]) -> None:
        self.effects = effects
        self.told: list[Event] = []

    def handle(self, _now: float, event: Event) -> list[Effect]:
        self.told.append(event)
        effects, self.effects = self.effects, []
        return effects

    def next_deadline(self) -> float | None:
        return None


class Sandbox:
    cgroup = None
    roots = ()

    def __init__(self, *, stands: bool = True) -> None:
        self.done: list[str] = []
        self.stands = stands

    def last_metered(self) -> None:
        """Nothing is metered."""

    def freeze(self) -> StopReport:
        self.done.append("freeze")
        return StopReport(True, 1, (), 0.0)

    def thaw(self) -> None:
        self.done.append("thaw")

    def take_over(self, effect: OpenSandbox) -> None:
        self.done.append(f"take over {effect.lease.lease}")

    def abandon(self) -> None:
        self.done.append("abandon")

    def close(self, *, save: bool = False) -> tuple[StopReport, asyncio.Task[None]]:
        self.done.append("save" if save else "close")
        return StopReport(True, 1, (), 0.0), asyncio.create_task(asyncio.sleep(0))


class FullDisk:
    def send(self, *_: object) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def shell_of(core: Script, state: StateFolder, sandbox: Sandbox) -> Shell:
    parts: dict[str, Any] = dict.fromkeys(("queues", "receipts", "today", "jobs_done"))
    shell = Shell(core, lambda: 0.0, reporter=FullDisk(), signer=ALICE, **parts)  # type: ignore[arg-type]  # stand-ins
    shell.equip(SimpleNamespace(state=state))  # type: ignore[arg-type]  # all that a thaw needs
    shell._executions[lease_id(1)] = sandbox  # type: ignore[assignment]  # a stand-in
    return shell


async def test_a_full_disk_keeps_no_later_effect_from_being_carried_out(
    state: StateFolder,
) -> None:
    sandbox = Sandbox()
    effects = [SendReport(lease_id(1), 1, REPORT, make_lease()), FreezeSandbox(lease_id(1))]
    shell = shell_of(Script([*effects, CloseSandbox(lease_id(1))]), state, sandbox)
    with pytest.raises(OSError, match="No space"):
        shell.post(TimeAdvanced())
    assert sandbox.done == ["freeze", "close"]


async def test_a_thaw_that_was_due_when_the_owner_paused_without_us_is_not_carried_out(
    state: StateFolder,
) -> None:
    sandbox, core = Sandbox(), Script([ThawSandbox(lease_id(1))])
    shell = shell_of(core, state, sandbox)
    write_intent(state, Intent(paused=True, paused_at=1.0))
    shell.post(TimeAdvanced())
    assert sandbox.done == []
    assert [type(event).__name__ for event in core.told] == ["TimeAdvanced", "IntentLoaded"]
    write_intent(state, Intent(paused=False, paused_at=2.0))
    core.effects = [ThawSandbox(lease_id(1))]
    shell.post(TimeAdvanced())
    assert sandbox.done == ["thaw"]


def takes_over() -> OpenSandbox:
    return OpenSandbox(make_lease(number=2), make_spec(), "G-1", reuse=lease_id(1))


async def test_a_kept_sandbox_goes_on_under_its_new_lease(state: StateFolder) -> None:
    sandbox = Sandbox()
    shell = shell_of(Script([takes_over()]), state, sandbox)
    shell.post(TimeAdvanced())
    assert sandbox.done == [f"take over {lease_id(2)}"]
    assert list(shell.executions) == [lease_id(2)]


async def test_one_that_died_or_was_stopped_while_it_waited_is_closed_and_another_made(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, fresh = Sandbox(stands=False), Sandbox()
    shell = shell_of(Script([takes_over()]), state, dead)
    monkeypatch.setattr("lender.daemon.shell.Execution", lambda *_: fresh)
    shell.post(TimeAdvanced())
    assert dead.done == ["close"]
    assert dict(shell.executions) == {lease_id(2): fresh}


async def test_what_is_being_saved_can_be_abandoned_until_it_is_over(state: StateFolder) -> None:
    sandbox = Sandbox()
    core = Script([CloseSandbox(lease_id(1), save=True), AbandonCheckpoint(lease_id(1))])
    shell = shell_of(core, state, sandbox)
    shell.post(TimeAdvanced())
    assert sandbox.done == ["save", "abandon"]
    await asyncio.gather(*shell._cleaning)
    core.effects = [AbandonCheckpoint(lease_id(1))]
    shell.post(TimeAdvanced())
    assert sandbox.done == ["save", "abandon"], "it was over"


async def test_who_follows_consent_hears_when_it_was_read(state: StateFolder) -> None:
    core, heard = Script([]), list[Event]()
    shell = shell_of(core, state, Sandbox())
    shell.on_consent = lambda: heard.extend(core.told)
    shell.post(TimeAdvanced())
    assert heard == []
    shell.post(ConsentLoaded(Consent()))
    assert heard == [TimeAdvanced(), ConsentLoaded(Consent())]
