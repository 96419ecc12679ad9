"""`lender revoke` while lenderd hangs: the work dies, and lenderd starts again afterwards."""

import os
import signal

import psutil

from deploy.local.fleet import Fleet, wait_until


def test_a_hung_daemon_keeps_nothing_running_and_starts_again(fleet: Fleet) -> None:
    desk, attic = fleet.lenders["desk"], fleet.lenders["attic"]
    attic.owner("pause")
    said = fleet.submit("submit", "--no-wait", "--", "sleep", "1000")
    assert said.returncode == 0, said.stderr
    wait_until(desk.busy, "work on desk")
    work = [one for one in psutil.Process(desk.pid).children(recursive=True) if _sleeps(one)]
    assert work
    os.kill(desk.pid, signal.SIGSTOP)
    said = desk.owner("revoke", "--all")
    assert said.returncode == 0, said.stdout + said.stderr
    assert not any(one.is_running() and _sleeps(one) for one in work)

    assert desk.process is not None
    desk.process.wait(10)
    desk.start()
    wait_until(lambda: desk.owner("status").returncode == 0, "lenderd serving again")
    assert desk.status()["phase"] == "unconsented"
    assert "revoked" in desk.owner("log").stdout


def _sleeps(process: psutil.Process) -> bool:
    try:
        return process.name() == "sleep"
    except psutil.Error:
        return False
