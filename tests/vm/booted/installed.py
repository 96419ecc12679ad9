"""The package on a machine that systemd has booted: what an owner and an operator see of it.

One story, in this order, as root. Nothing but the package and pytest is there.
"""

import contextlib
import ctypes
import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "/lender/{}"
UNIT = "lenderd.service"
CGROUP = Path("/sys/fs/cgroup/lender.slice/lenderd.service")
STATE = Path("/var/lib/lender")
WITHIN_S = 300.0
"""An emulated processor is slow."""
DRAIN_S = 20
CONTROLLERS = "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text()
"""A container has only those of cgroup v2 that its host does not use otherwise."""

RUNTIMES = ("runtime.wasm", "runtime.process", "runtime.python", "runtime.oci")


def run(*command: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WITHIN_S, check=False, **more
    )
    if check and done.returncode:
        pytest.fail(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal(60)}")
    return done


def journal(lines: int) -> str:
    return run("journalctl", "--no-pager", "-n", str(lines), check=False).stdout


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {WITHIN_S} s: {what}\n{journal(80)}")
        time.sleep(0.2)


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def status() -> dict[str, Any]:
    done = run("lender", "status", "--json", check=False)
    return dict(json.loads(done.stdout)) if done.stdout else {}


def processes_of(user: str) -> set[int]:
    uid, found = pwd.getpwnam(user).pw_uid, set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == uid:
                found.add(int(path.name))
    return found


def drop_in(unit: str, text: str) -> None:
    """As `systemctl edit` leaves it."""
    folder = Path(f"/etc/systemd/system/{unit}.d")
    folder.mkdir(exist_ok=True)
    (folder / "override.conf").write_text(text)
    run("systemctl", "daemon-reload")


@pytest.fixture
def job() -> Iterator[set[int]]:
    """A job that runs on and on, and ignores SIGTERM: the processes of its sandbox."""
    command = "trap '' TERM; sleep 5000 & while :; do sleep 1; done"
    run("lender", "submit", "--no-wait", "--", "sh", "-c", command)
    until(lambda: any(one["state"] == "running" for one in status().get("running", ())), "it runs")
    inside: set[int] = set()
    until(lambda: inside.update(sandboxed()) or len(inside) > 2, "it has its processes")
    yield inside
    for line in json.loads(run("lender", "jobs", "--json").stdout)["jobs"]:
        run("lender", "cancel", line["job"], check=False)


def sandboxed() -> set[int]:
    found = set()
    for path in CGROUP.glob("lender-*/jobs/*/cgroup.procs"):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in path.read_text().split()}
    return found


def place(pid: int) -> str:
    """Where a process stands in cgroup v2."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (found,) = (line.removeprefix("0::") for line in lines if line.startswith("0::"))
    return found


def doctor(*command: str) -> dict[str, dict[str, str]]:
    """What `lender doctor` says, by name."""
    done = run(*command, "lender", "doctor", "--json", check=False)
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def leaf() -> str:
    """Where lenderd stands in its unit's cgroup: it moves where there is anything to hand on."""
    return "lender.slice/lenderd.service" + ("/daemon" if CONTROLLERS else "")


def holds(*names: str, of: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """See that the doctor is content; sandboxes that were cut off in their test are tried again."""
    names = tuple(
        one for one in names if CONTROLLERS or one not in ("cgroup.limits", "cgroup.weight")
    )
    found: dict[str, dict[str, str]] = {}

    def well() -> bool:
        found.update(doctor(*of))
        return all(found[name]["level"] == "ok" for name in names)

    until(well, f"{names}")
    return found


def walls_hold(checks: dict[str, dict[str, str]]) -> None:
    """No unit takes Landlock away: asked of this process, which no unit hardens."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(444, None, 0, 1) >= 2:  # landlock_create_ruleset(2), its version
        for name in ("runtime.wasm", "runtime.process"):
            assert "no second wall" not in checks[name]["text"], checks[name]


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def test_the_package_starts_nothing_and_grants_nothing() -> None:
    (package,) = Path("/lender").glob("*.deb")
    run("dpkg", "-i", str(package))
    for unit in (UNIT, "lender-broker.service"):
        assert run("systemctl", "is-enabled", unit, check=False).stdout.strip() == "disabled"
        assert run("systemctl", "is-active", unit, check=False).stdout.strip() == "inactive"
    assert pwd.getpwnam("lender").pw_shell.endswith("nologin")
    assert not STATE.exists()
    assert not run("systemctl", "--failed", "--no-legend").stdout


def test_the_broker_becomes_ready_when_it_is() -> None:
    Path("/etc/lender").mkdir()
    Path("/etc/lender/broker.toml").write_text("embedded = true\n")
    run("lender", "install", "--system", "--broker", "--dry-run")
    assert show("lender-broker.service", "ActiveState") == "inactive"
    run("lender", "install", "--system", "--broker")
    assert show("lender-broker.service", "ActiveState") == "active"
    until(lambda: show("lender-broker.service", "StatusText") == "leading", "it leads")
    assert processes_of("lender-broker")


def test_lenderd_becomes_ready_in_a_leaf_of_its_own_with_sandboxes_that_start() -> None:
    # It sees what else its host does, and would step back.
    settings = f'drain_s = {DRAIN_S}\npolicy = {{ defaults = "dedicated" }}\n'
    Path("/etc/lender/lenderd.toml").write_text(settings)
    said = run("lender", "install", "--system").stdout
    assert "✓ run systemctl start lenderd.service" in said
    assert show(UNIT, "ActiveState") == "active"
    assert (show(UNIT, "Type"), show(UNIT, "WatchdogUSec")) == ("notify", "1min")
    main = int(show(UNIT, "MainPID"))
    assert place(main).endswith(f"/{leaf()}")
    assert (STATE / "control.sock").exists()
    assert status()["phase"] == "unconsented"
    checks = holds("daemon", "cgroup.delegated", "cgroup.limits", "cgroup.weight", *RUNTIMES)
    walls_hold(checks)
    if CONTROLLERS:
        assert "cores, memory, processes" in checks["cgroup.limits"]["text"]
    assert "it is so already" in run("lender", "install", "--system").stdout


def test_what_its_owner_granted_runs_and_others_may_pause_it() -> None:
    key = json.loads(run("lender", "keygen", "--json").stdout)["public_key"]
    as_broker = ("runuser", "-u", "lender-broker", "--", "env", "XDG_STATE_HOME=/var/lib")
    run(*as_broker, "lender-broker", "allow", "alice", key)
    limits = ("--cpu", "1", "--mem", "1G", "--when", "always", "--expires", "1d", "--yes")
    run("lender", "grant", f"alice={key}", "--workload", "command", *limits)
    assert run("lender", "submit", "--", "echo", "lent").stdout == "lent\n"
    run("runuser", "-u", "nobody", "--", "lender", "pause")
    assert status()["paused"] is True
    run("lender", "resume")


def test_a_lenderd_that_hangs_is_killed_with_its_work_and_started_anew(job: set[int]) -> None:
    drop_in(UNIT, "[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\nRestartSec=1\n")
    run("systemctl", "restart", UNIT)
    assert show(UNIT, "WatchdogUSec") == "4s"
    until(lambda: not alive(job), "a stop took its work along")
    until(sandboxed, "the job came back")
    held, first = sandboxed(), int(show(UNIT, "MainPID"))
    assert show(UNIT, "NRestarts") == "0"
    os.kill(first, signal.SIGSTOP)
    until(lambda: show(UNIT, "NRestarts") == "1", "systemd missed its word")
    until(lambda: show(UNIT, "ActiveState") == "active", "it runs again")
    assert int(show(UNIT, "MainPID")) != first
    assert not alive({first, *held})
    assert "Watchdog timeout" in run("journalctl", "--no-pager", "-u", UNIT).stdout


def test_a_loop_that_hangs_writes_where(job: set[int]) -> None:
    main = int(show(UNIT, "MainPID"))
    os.kill(main, signal.SIGABRT)  # as the watchdog does
    until(lambda: show(UNIT, "NRestarts") == "2", "it is started anew")
    until(lambda: show(UNIT, "ActiveState") == "active", "it runs again")
    assert "Fatal Python error: Aborted" in run("journalctl", "--no-pager", "-u", UNIT).stdout
    assert not alive(job)


def test_a_broker_that_hangs_is_started_anew() -> None:
    unit = "lender-broker.service"
    drop_in(unit, "[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\nRestartSec=1\n")
    run("systemctl", "restart", unit)
    os.kill(int(show(unit, "MainPID")), signal.SIGSTOP)
    until(lambda: show(unit, "NRestarts") == "1", "systemd missed its word")
    until(lambda: show(unit, "StatusText") == "leading", "it leads again")
    assert run("lender", "submit", "--", "echo", "again").stdout == "again\n"


def test_a_pause_survives_a_restart() -> None:
    run("lender", "pause")
    run("systemctl", "restart", UNIT)
    assert status()["paused"] is True
    assert run("lender", "status", "--check", check=False).returncode == 3
    run("lender", "resume")
    until(lambda: status()["phase"] == "lending", "it lends again")


def test_a_secret_comes_as_a_credential() -> None:
    secret = Path("/etc/credstore/lenderd.creds")
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("alice:secret\n")
    secret.chmod(0o600)
    run("systemctl", "restart", UNIT)
    until(lambda: status().get("connected"), "it is let in")
    assert Path("/run/credentials/lenderd.service/lenderd.creds").exists()
    secret.unlink()
    run("systemctl", "restart", UNIT)


def test_a_stop_leaves_no_process(job: set[int]) -> None:
    assert processes_of("lender")
    # Less than a drain, so that lenderd has to ask for more; what ends leftovers has to do with it.
    drop_in(UNIT, f"[Service]\nTimeoutStopSec={DRAIN_S - 5}\n")
    run("systemctl", "stop", UNIT)
    assert show(UNIT, "Result") == "success", journal(60)
    assert not alive(job)
    assert not processes_of("lender")
    assert not CGROUP.exists()
    assert not list((STATE / "attempts").iterdir())
    run("systemctl", "start", UNIT)


def test_a_lenderd_that_is_killed_leaves_no_process(job: set[int]) -> None:
    drop_in(UNIT, "[Service]\nRestart=no\n")
    os.kill(int(show(UNIT, "MainPID")), signal.SIGKILL)
    until(lambda: show(UNIT, "ActiveState") == "failed", "it ended")
    assert not alive(job)
    assert not processes_of("lender")
    run("lender", "install", "--system")
    assert show(UNIT, "ActiveState") == "active"


def test_a_user_has_a_service_of_their_own() -> None:
    run("systemctl", "start", "user@1000.service")
    me = (
        "runuser",
        "-u",
        "tester",
        "--",
        "env",
        "XDG_RUNTIME_DIR=/run/user/1000",
        "HOME=/home/tester",
    )
    control = (*me, "systemctl", "--user")
    assert run(*me[:4], "lender", "install", check=False).returncode == 1, "no manager is in reach"
    said = run(*me, "lender", "install").stdout
    assert "loginctl enable-linger" in said
    assert run(*control, "is-active", UNIT).stdout.strip() == "active"
    main = int(run(*control, "show", "--value", "-p", "MainPID", UNIT).stdout)
    assert place(main).endswith(f"/user@1000.service/{leaf()}")
    walls_hold(holds("cgroup.delegated", "cgroup.limits", "cgroup.weight", *RUNTIMES, of=me))
    run(*me, "lender", "uninstall")
    assert run(*control, "is-active", UNIT, check=False).stdout.strip() == "inactive"
    assert Path(f"/proc/{main}").exists() is False
    assert Path("/home/tester/.local/state/lender").is_dir(), "it stays"
    assert "it is so already" in run(*me, "lender", "uninstall").stdout
    run(*me, "lender", "uninstall", "--purge", "--yes")
    assert not Path("/home/tester/.local/state/lender").exists()


def test_removing_the_package_ends_it_all_and_purging_forgets() -> None:
    run("dpkg", "--remove", "lender")
    assert not processes_of("lender")
    assert not processes_of("lender-broker")
    assert not Path("/usr/lib/lender").exists()
    assert list((STATE / "grants").iterdir()), "what its owner said is kept"
    run("dpkg", "--purge", "lender")
    assert not STATE.exists()
    assert Path("/var/lib/lender-broker").exists(), "keys of a fleet"
