"""A revocation, with lenderd hung or alive: the work dies, and nothing of it is kept."""

import os
import signal
from pathlib import Path

import live_files
import psutil

from deploy.local.fleet import Fleet, Lender, wait_until


def test_a_hung_daemon_keeps_nothing_running_and_starts_again(fleet: Fleet) -> None:
    desk, attic = fleet.lenders["desk"], fleet.lenders["attic"]
    attic.owner("pause")
    secret = fleet.folder / "secret.txt"
    secret.write_text("only for the machine that runs it")
    said = fleet.submit(
        "submit", "--no-wait", "--in", f"{secret}=secret.txt", "--", "sleep", "1000"
    )
    assert said.returncode == 0, said.stderr
    wait_until(lambda: bool(_sleepers(desk)), "work on desk")
    work = _sleepers(desk)
    assert _holds(desk.state, secret.read_bytes())
    os.kill(desk.pid, signal.SIGSTOP)
    said = desk.owner("revoke", "--all")
    assert said.returncode == 0, said.stdout + said.stderr
    assert not any(one.is_running() and _sleeps(one) for one in work)
    assert not _holds(desk.state, secret.read_bytes())

    assert desk.process is not None
    desk.process.wait(10)
    desk.start()
    wait_until(lambda: desk.owner("status").returncode == 0, "lenderd serving again")
    assert desk.status()["phase"] == "unconsented"
    assert "revoked" in desk.owner("log").stdout


def test_lenderd_itself_deletes_what_it_kept_of_a_revoked_submitter(fleet: Fleet) -> None:
    desk, attic = fleet.lenders["desk"], fleet.lenders["attic"]
    attic.owner("pause")
    secret = fleet.folder / "secret.txt"
    secret.write_text("only for the machine that runs it")
    said = fleet.submit("submit", "--in", f"{secret}=secret.txt", "--", "cat", "secret.txt")
    assert said.returncode == 0, said.stderr
    assert _holds(desk.state, secret.read_bytes())
    # As a script would: a tombstone, and a word to lenderd.
    for grant in (desk.state / "grants").glob("*.toml"):
        (desk.state / "tombstones" / grant.stem).touch()
    desk.owner("resume")
    wait_until(lambda: not _holds(desk.state, secret.read_bytes()), "the purge")
    assert desk.status()["phase"] == "unconsented"


def _holds(state: Path, content: bytes) -> bool:
    """Whether a file of this content is anywhere below."""
    return any(found == content for _, found in live_files.contents(state))


def _sleepers(lender: Lender) -> list[psutil.Process]:
    below = psutil.Process(lender.pid).children(recursive=True)
    return [one for one in below if _sleeps(one)]


def _sleeps(process: psutil.Process) -> bool:
    try:
        return process.name() == "sleep"
    except psutil.Error:
        return False
