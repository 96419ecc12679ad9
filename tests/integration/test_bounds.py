"""Whom a lender works for: as its owner grants it and the operator approved it, while it runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from enrolling_fleet import EnrollingFleet

from broker.deployment.tokens import Key, decode
from deploy.local.fleet import Lender, wait_until
from lender.client import Client
from lender.link.connection import ConnectError, connect
from lender.link.credentials import JWT_LINE, part_of
from lender.link.membership import submitters_folder

BOB = Key.make("user", os.urandom(32)).public


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[EnrollingFleet]:
    with EnrollingFleet(open_folder) as running:
        with running.enroll(
            "--role", "submitter", "--key", str(running.key), "--name", "demo"
        ) as x:
            running.approve(x.document()["code"])
            assert x.ended() == 0, x.complaint()
        yield running


def enrolled(fleet: EnrollingFleet, name: str, *approval: str) -> tuple[Lender, str]:
    """A machine that was let in, and its key."""
    desk = fleet.add(name)
    with fleet.enroll_lender(name) as enrolling:
        shown = enrolling.document()
        fleet.approve(shown["code"], *approval)
        assert enrolling.ended() == 0, enrolling.complaint()
    wait_until(lambda: desk.status().get("connected") is True, "the line")
    return desk, shown["key"]


def creds(desk: Lender) -> Path:
    return desk.state / "fleet" / "fleet.creds"


def works_for(desk: Lender) -> set[str]:
    """Whose classes its token names."""
    tags = decode(part_of(creds(desk).read_text(), JWT_LINE))["nats"]["tags"]
    return {"*" if tag == "class:*" else tag.split("_")[4] for tag in tags if "class:" in tag}


def grant(desk: Lender, whom: str) -> None:
    said = desk.owner(
        *("grant", whom, "--workload", "command", "--cpu", "2", "--mem", "2G"),
        *("--when", "always", "--expires", "1d", "--yes"),
    )
    assert said.returncode == 0, said.stderr


def client(fleet: EnrollingFleet) -> Client:
    return Client(fleet.url, fleet.key, credentials=submitters_folder(fleet.key) / "fleet.creds")


def said(fleet: EnrollingFleet, *verb: str) -> str:
    done = fleet.broker_verb(*verb)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def refused(url: str, path: Path) -> bool:
    try:
        await (await connect(url, name="old", credentials=path, timeout_s=1.0)).close()
    except ConnectError:
        return True
    return False


async def test_a_lenders_token_holds_what_owner_and_operator_both_say_while_it_runs(
    fleet: EnrollingFleet,
) -> None:
    desk, key = enrolled(fleet, "desk", "--submitters", "demo")
    pid = desk.pid
    assert works_for(desk) == set()
    listed = said(fleet, "bound", key)
    assert key in listed
    assert "demo alone" in listed

    # What the owner grants is run, without a restart; what the operator did not approve is not.
    grant(desk, f"demo={fleet.submitter}")
    wait_until(lambda: works_for(desk) == {fleet.submitter}, "the token")
    async with client(fleet) as submitter:
        # While a task runs, its token is widened, narrowed and made anew: the task does not notice.
        job = await submitter.submit(["sh", "-c", "sleep 8; echo done"])
        wait_until(desk.busy, "the task")
        grant(desk, f"bob={BOB}")
        hint = f"lender-broker bound {key} --add {BOB}"
        wait_until(lambda: hint in str(desk.status()["grants"]), "the hint")
        assert works_for(desk) == {fleet.submitter}
        found = desk.owner("preflight", fleet.url).stdout
        assert "not approved this machine for it: command of bob" in found
        said(fleet, *hint.split()[1:])
        wait_until(lambda: works_for(desk) == {fleet.submitter, BOB}, "the wider token")
        withdrawn = desk.owner("revoke", "--submitter", BOB)
        assert withdrawn.returncode == 0, withdrawn.stderr
        wait_until(lambda: works_for(desk) == {fleet.submitter}, "the narrower token")
        before = creds(desk).read_text()
        said(fleet, "rotate", "--role", "lender")
        said(fleet, "rotate", "--role", "lender", "--retire", "--yes")
        wait_until(lambda: creds(desk).read_text() != before, "a token of the new key")
        result = await job.result(timeout_s=60)
        assert (result.terminal.state, result.terminal.attempt) == ("succeeded", 1)
        last = await submitter.submit(["true"])
        assert (await last.ended(60)).state == "succeeded"
    assert creds(desk).stat().st_mode & 0o777 == 0o600
    assert [one.name for one in creds(desk).parent.glob(".*")] == []

    # A narrower bound holds against the token that it has, or that somebody has copied.
    old = fleet.folder / "old.creds"
    old.touch(mode=0o600)
    old.write_text(creds(desk).read_text())
    said(fleet, "bound", key, "--submitters", BOB)
    assert await refused(fleet.url, old)
    wait_until(lambda: works_for(desk) == set(), "the narrower token")
    wait_until(lambda: desk.status().get("connected") is True, "the line")
    said(fleet, "bound", key, "--submitters", "all")
    assert "for everybody" in fleet.broker_verb("bound", key, "--add", "demo").stderr
    wait_until(lambda: works_for(desk) == {"*"}, "a token for all")
    wait_until(lambda: desk.status().get("connected") is True, "the line")
    assert (desk.alive(), desk.pid) == (True, pid)

    # Who was revoked does not come back by a bound, and ends.
    said(fleet, "revoke", key)
    assert "was revoked" in fleet.broker_verb("bound", key, "--submitters", "demo").stderr
    wait_until(lambda: not desk.alive(), "its end")
    log = desk.log.read_text()
    assert "let in no more" in log
    assert "Traceback" not in log
    assert "no lender with that key" in fleet.broker_verb("bound", BOB, "--pools", "x").stderr
