"""Fixtures: fleets of real processes on this machine, for one test or for one after another."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from deploy.local.fleet import Fleet, FleetError, Lender, wait_until
from lender.client.client import Client
from lender.client.errors import ClientError

COMMANDS = ("command",)
UNDER_WAY = ("queued", "running")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter. Pytest's own are private, and made so again by each run.

    The lenders become an ordinary user, and some tests play a stranger.
    """
    folder = _new_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[Fleet]:
    """A broker with its NATS server and two fresh lenders whose owners let commands run."""
    with Fleet(open_folder, ("desk", "attic"), workloads=COMMANDS) as running:
        yield running


class StandingFleet:
    """A fleet for one test after another; a new one after a test that it did not recover from.

    For tests that look at their own jobs alone: receipts and ended jobs of others are there.
    """

    def __init__(
        self,
        *names: str,
        workloads: Sequence[str] = COMMANDS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._names = names
        self._env = env
        self._workloads = workloads
        self._fleet: Fleet | None = None
        self._ending = ExitStack()
        self._consent: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def in_order(self) -> Fleet:
        """The fleet, with all of it alive, lending what it granted at first, and nothing to do."""
        if self._fleet is not None:
            try:
                self._put_in_order(self._fleet)
            except (FleetError, ClientError, OSError) as error:  # TimeoutError is one
                print("a new fleet is started:", error)  # noqa: T201 - pytest shows it
                self.close()
        if self._fleet is None:
            fleet = Fleet(_new_folder(), self._names, workloads=self._workloads, env=self._env)
            self._ending.callback(fleet.remove)
            self._fleet = self._ending.enter_context(fleet)
            self._consent = {one.name: _grants(one) for one in fleet.lenders.values()}
        return self._fleet

    def close(self) -> None:
        """End it and delete what it kept."""
        self._fleet = None
        self._ending.close()

    def _put_in_order(self, fleet: Fleet) -> None:
        """Take back what its submitter and its owners said.

        Raises:
            FleetError, ClientError, OSError: it is not what it was.
        """
        for part in (fleet.broker, *fleet.lenders.values()):
            if not part.alive():
                raise FleetError(f"{part.name} has ended")
        states(fleet, cancel=True)
        for lender in fleet.lenders.values():
            os.kill(lender.pid, signal.SIGCONT)
            if lender.status().get("phase") != "lending":
                lender.owner("resume")
            if _grants(lender) != self._consent[lender.name]:
                lender.owner("revoke", "--all")
                for workload in self._workloads:
                    fleet.grant(lender, workload)
                self._consent[lender.name] = _grants(lender)
        wait_until(lambda: all(map(_is_idle, fleet.lenders.values())), "calm")


def states(fleet: Fleet, *, cancel: bool = False) -> dict[str, str]:
    """The state of each job that the broker knows; with `cancel`, what is under way is ended."""

    async def ask() -> dict[str, str]:
        async with Client(fleet.url, fleet.key) as client:
            found = {one.job: str(one.state) for one in await client.jobs()}
            for name, state in found.items():
                if cancel and state in UNDER_WAY:
                    job = await client.get(name)
                    await job.cancel()
                    await job.ended(timeout_s=20)
        return found

    # With a factory, the loop of the test that may follow is left alone.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(ask())


def working_folders(lender: Lender) -> list[Path]:
    """Those of its sandboxes; one that waits for its job (`walls_ahead`) is nobody's yet."""
    found = (lender.state / "scratch").iterdir()
    return [one for one in found if not one.name.startswith("ahead-")]


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lender-test-"))
    folder.chmod(0o711)
    return folder


def _grants(lender: Lender) -> set[str]:
    """The ids of what is granted, as lenderd knows it."""
    return {grant["id"] for grant in lender.status().get("grants", ())}


def _is_idle(lender: Lender) -> bool:
    return lender.lending() and lender.status().get("running") == []
