"""Small parts of lenderd: the words to systemd, the catalogue, today's sum, the user to become."""

import asyncio
import contextlib
import os
import pwd
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lender.client import catalogue
from lender.core.admission import CatalogueEntry
from lender.daemon.catalogue import CatalogueError, read_catalogue
from lender.daemon.clock import Clock
from lender.daemon.identity import load_or_create
from lender.daemon.privilege import PrivilegeError, drop_to
from lender.daemon.today import Today
from lender.protocol.errors import ProtocolError
from lender.service.notify import ask_for_time, feed_watchdog, notify, watchdog_interval_s
from lender.service.workload_folders import installed_workloads


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_that_the_daemon_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    name = f"@lender-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"
        assert ask_for_time(32.5)
        assert listener.recv(100) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=32500000"


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not notify("READY=1")


def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_interval_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval_s() is None


def test_the_daemon_and_the_catalogue_agree_on_every_workload() -> None:
    ours = catalogue.load()
    assert read_catalogue(installed_workloads()) == {
        name: CatalogueEntry(one.runtime, one.sha256) for name, one in ours.items()
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('name = "Bad Name"\nruntime = "wasm"', "name"),
        ('name = "x"\nruntime = "docker"', "runtime"),
        ('name = "x"\nruntime = "wasm"\nsha256 = "12"', "sha256"),
        ("name = ", "workload.toml"),
    ],
)
def test_a_malformed_workload_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "workload.toml").write_text(text)
    with pytest.raises(CatalogueError, match=named):
        read_catalogue(tmp_path)


def test_added_workloads_stand_beside_the_catalogue_and_replace_none(tmp_path: Path) -> None:
    for name in ("mine", "checksum"):
        (tmp_path / name / name).mkdir(parents=True)
        described = tmp_path / name / name / "workload.toml"
        described.write_text(f'name = "{name}"\nruntime = "process"\n')
    ours = read_catalogue(installed_workloads())
    assert read_catalogue(installed_workloads(), tmp_path / "mine") == {
        **ours,
        "mine": CatalogueEntry("process"),
    }
    for folder, said in (
        ("checksum", "there is a workload checksum"),
        ("absent", "no such folder"),
    ):
        with pytest.raises(CatalogueError, match=said):
            read_catalogue(installed_workloads(), tmp_path / "mine", tmp_path / folder)


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "identity.nk"
    first = load_or_create(path)
    assert load_or_create(path).public_key == first.public_key
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_identity_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "identity.nk"
    path.write_text("not a seed")
    with pytest.raises(ProtocolError, match="seed"):
        load_or_create(path)
    assert path.read_text() == "not a seed"


def test_today_counts_jobs_once_and_seconds_of_each_lease() -> None:
    now = time.time()
    receipts = [
        {"job": "a", "started_at": now - 2, "ended_at": now, "energy_wh": 0.25},
        {"job": "a", "started_at": now - 1, "ended_at": now},
        {"kind": "repair"},
        {"job": "a", "ended_at": now},
        {"job": "b", "started_at": now, "ended_at": "never"},
        {"job": "old", "started_at": now - 200_000, "ended_at": now - 190_000},
    ]
    summary = Today(receipts).summary()
    assert summary == {"jobs": 1, "seconds": 3.0, "energy_wh": 0.25}


def test_today_reads_the_log_back_to_midnight_only() -> None:
    def newest_first() -> Iterator[dict[str, object]]:
        now = time.time()
        yield {"job": "a", "started_at": now, "ended_at": now}
        yield {"job": "b", "started_at": now - 200_000, "ended_at": now - 190_000}
        pytest.fail("read on")

    assert Today(newest_first()).summary()["jobs"] == 1


def test_the_clock_starts_at_the_wall_clock_and_never_goes_back() -> None:
    clock = Clock()
    first = clock()
    assert abs(first - time.time()) < 5
    assert clock() >= first


def test_the_clock_tells_how_far_it_is_ahead_of_a_wall_clock_that_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, wall = Clock(), time.time
    assert clock.behind_s() == 0.0
    first = clock()
    monkeypatch.setattr(time, "time", lambda: wall() - 7200.0)
    assert clock.behind_s() == pytest.approx(7200.0, abs=1.0)
    assert clock() >= first
    monkeypatch.setattr(time, "time", lambda: wall() + 7200.0)
    assert clock.behind_s() == 0.0
    assert clock() == pytest.approx(wall() + 7200.0, abs=5.0)


def test_root_needs_an_ordinary_user_to_become(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for user, reason in ((None, "does not run work as root"), ("root", "is root")):
        with pytest.raises(PrivilegeError, match=reason):
            drop_to(user)
    with pytest.raises(PrivilegeError, match="no user"):
        drop_to("no-such-user-at-all")
    nobody = pwd.getpwnam("nobody")
    assert drop_to("nobody") == (nobody.pw_uid, nobody.pw_gid)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert drop_to(None) is None


async def test_the_brokers_loop_feeds_its_watchdog_and_one_that_hangs_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "10000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        feeding = asyncio.create_task(feed_watchdog())
        loop = asyncio.get_running_loop()
        for _ in range(2):
            assert await asyncio.wait_for(loop.sock_recv(systemd, 100), 20) == b"WATCHDOG=1"
        with contextlib.suppress(BlockingIOError):
            while systemd.recv(100):
                pass
        time.sleep(0.1)  # noqa: ASYNC251 - the loop hangs
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        feeding.cancel()
