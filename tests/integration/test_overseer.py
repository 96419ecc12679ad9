"""The operator's own credentials get new ones: earlier ones let nobody speak with the servers."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest
from cut_off import CrashError, Steps
from nats_server import until
from vouching_server import VouchingServer, fleet

from broker.deployment.overseer import NEXT, renew_overseer
from broker.deployment.servers import servers
from lender.link.connection import connect

__all__ = ["fleet"]  # a fixture


def stolen(fleet: VouchingServer, name: str) -> Path:
    """A copy of the credentials as they are now."""
    return Path(shutil.copy2(fleet.deployment.system_credentials, fleet.folder / name))


async def speaks(fleet: VouchingServer, *paths: Path) -> list[bool]:
    """Whether each of these lets anybody speak with the server itself."""
    return await asyncio.gather(*map(fleet.lets_in, paths))


async def renew(fleet: VouchingServer) -> None:
    await renew_overseer(
        fleet.deployment,
        lambda: servers(fleet.deployment, fleet.url, fleet.ca),
        os.urandom,
        time.time(),
    )


async def test_stolen_credentials_are_worth_nothing_once_there_are_new_ones(
    fleet: VouchingServer,
) -> None:
    first = stolen(fleet, "first.creds")
    thief = await connect(fleet.url, name="thief", credentials=first, ca=fleet.ca)
    said = fleet.rotate("--system")
    assert (said.returncode, said.stderr) == (0, "")
    await until(lambda: not thief.connected, 20)
    second = stolen(fleet, "second.creds")
    assert await speaks(fleet, first, second) == [False, True]
    await renew(fleet)
    now = fleet.deployment.system_credentials
    assert await speaks(fleet, second, now) == [False, True], "within the second it was made in"
    # All else goes on by the new ones, also on a server that starts later.
    assert fleet.rotate("--role", "lender").returncode == 0
    fleet.kill()
    await fleet.start()
    assert await speaks(fleet, first, second, now) == [False, False, True]
    await thief.close()


async def test_one_that_is_cut_off_anywhere_is_completed_by_another(
    fleet: VouchingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = 0, False
    earlier: list[Path] = []
    while not done:
        earlier.append(stolen(fleet, f"{step}.creds"))
        with monkeypatch.context() as patched:
            Steps(patched, step)
            try:
                await renew(fleet)
                done = True
            except CrashError:
                pass
        if not done:
            await renew(fleet)
        assert await speaks(fleet, fleet.deployment.system_credentials) == [True], f"step {step}"
        assert not (fleet.deployment.folder / NEXT).exists()
        step += 1
    assert step > 8
    assert not any(await speaks(fleet, *earlier))
