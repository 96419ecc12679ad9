"""What lenderd asks of macOS, over stand-ins that answer as its manual pages say."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lender.daemon import peer, privilege, socket_address
from lender.daemon.privilege import PrivilegeError
from lender.sandbox.processes import account, boot, sysctl, table, tree
from lender.sandbox.processes.account import Account
from lender.sandbox.processes.table import Process, Root
from lender.sandbox.runtimes import choice
from lender.sandbox.walls import mac_process
from lender.state.folder import StateFolder, read_account, write_pid

US = os.getpid()


class Sysctls:
    """The C library of a Mac, as far as it tells values by name."""

    def sysctlbyname(self, name: bytes, value: object, _: object, new: object, room: int) -> int:
        assert (new, room) == (None, 0)
        if name != b"kern.bootsessionuuid":
            return -1
        ctypes.memmove(value, b"5E6FFEBE\0", 9)  # type: ignore[arg-type] # a buffer
        return 0


def test_a_value_is_told_by_its_name_or_is_empty() -> None:
    assert sysctl.text("kern.bootsessionuuid", Sysctls()) == "5E6FFEBE"
    assert sysctl.text("kern.nothing", Sysctls()) == ""


def test_a_boot_is_told_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot.boot_id() == boot.boot_id() != ""
    monkeypatch.setattr(sysctl, "text", lambda name: f"of {name}")
    assert boot._mac() == "of kern.bootsessionuuid"


class Connection:
    """A connected Unix socket of a Mac: struct xucred, and a pid."""

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        assert level == 0, "SOL_LOCAL"
        if option == 2:
            return 4711
        assert (option, size) == (1, 76)
        return struct.pack("=IIhxx16I", 0, 501, 2, 20, 12, *(0,) * 14)


def test_who_is_on_the_other_side_is_read_from_a_macs_record() -> None:
    assert peer.on_mac(Connection()) == peer.Peer(uid=501, pid=4711)  # type: ignore[arg-type]


def test_who_is_on_the_other_side_is_told_here() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer.peer_of(ours) == peer.Peer(os.getuid(), US)


@pytest.mark.parametrize("way", [socket_address.by_link, socket_address.by_descriptor])
def test_a_socket_is_reached_however_long_its_path_is(way: object, tmp_path: Path) -> None:
    if way is socket_address.by_descriptor and sys.platform != "linux":
        pytest.skip("by /proc")
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path, before = folder / "s", set(Path(tempfile.gettempdir()).glob("lender-*"))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with way(path) as name:  # type: ignore[operator] # both are called so
            assert len(name) < 60
            listener.bind(name)
        listener.listen(1)
        assert path.is_socket()
        with way(path) as name:  # type: ignore[operator]
            client.connect(name)
    assert not [
        left for left in set(Path("/tmp").glob("lender-*")) - before if (left / "s").is_symlink()
    ]


def test_root_that_could_be_had_again_is_seen_by_trying() -> None:
    assert mac_process.holds_root() == (0 in os.getresuid())
    if os.getuid() == 0:
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from lender.sandbox.walls import mac_process\n"
            "os.setresuid(65534, 65534, int(sys.argv[2]))\n"
            "print(mac_process.holds_root(), os.geteuid())"
        )
        for saved, holds in ((0, "True 65534"), (65534, "False 65534")):
            words = [sys.executable, "-c", code, str(Path.cwd()), str(saved)]
            assert subprocess.check_output(words, text=True).strip() == holds


def test_only_what_is_named_stays_open() -> None:
    code = (
        "import os, sys\n"
        "from lender.sandbox.walls import mac_process\n"
        "mac_process.OPEN_FDS = '/dev/fd'\n"
        "opened = [os.dup(0) for _ in range(20)]\n"
        "mac_process.close_all_but((0, 1, 2, opened[3]))\n"
        "left = {int(name) for name in os.listdir('/dev/fd')}\n"
        "print({0, 1, 2, opened[3]} <= left, len(left))"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.split() == ["True", "5"]  # and the list itself


def test_a_mac_has_the_runtimes_that_do_not_need_linux() -> None:
    assert set(choice.ON_MAC) == {"wasm", "process", "python"}
    assert set(choice.ON_LINUX) == {*choice.ON_MAC, "oci"}


def family(monkeypatch: pytest.MonkeyPatch, ours: set[int], *rows: tuple[int, int]) -> set[int]:
    """Who of these (id, parent) is a stray; 10 is lenderd."""
    present = {pid: Process(pid, ppid, pid, ord("S"), 1, pid * 100) for pid, ppid in rows}
    monkeypatch.setattr(table, "listed_of", lambda _uid: ours)
    lenderd = Account(64123, (Root(10, 1000),))
    return {process.pid for process in account.strays(lenderd, present)}


def test_a_stray_hangs_below_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ((10, 1), (11, 10), (12, 11), (20, 1), (21, 20), (30, US), (40, 1))
    assert family(monkeypatch, {10, 11, 12, 20, 21, 30}, *rows) == {20, 21}


def test_a_later_process_with_lenderds_id_is_not_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {10: Process(10, 1, 10, ord("S"), 1, 1001)}
    monkeypatch.setattr(table, "listed_of", lambda _uid: {10})
    (found,) = account.strays(Account(64123, (Root(10, 1000),)), present)
    assert found.pid == 10


def test_the_dead_and_those_in_a_ring_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Process(20, 1, 20, ord("Z"), 1, 2000)
    ring = {31: 32, 32: 31}  # ids that went round between two looks
    present = {20: dead, **{n: Process(n, up, n, ord("S"), 1, n) for n, up in ring.items()}}
    monkeypatch.setattr(table, "listed_of", lambda _uid: set(present))
    found = account.strays(Account(64123, ()), present)
    assert {process.pid for process in found} == {31, 32}


def test_who_died_under_its_child_leaves_a_stray(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert family(monkeypatch, {20}, (20, gone.pid)) == {20}


def test_a_look_in_which_somebody_vanished_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who forks and ends all the time is in no look."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    looks = [{gone.pid}] * 3
    monkeypatch.setattr(table, "listed_of", lambda _uid: set())
    monkeypatch.setattr(table, "suspects", lambda _uid: looks.pop() if looks else set())
    monkeypatch.setattr(tree, "_account", Account(64123, ()))
    assert tree.kill(()).verified
    assert looks == []
    monkeypatch.setattr(table, "suspects", lambda _uid: {gone.pid})
    assert not tree.kill((), timeout_s=0.05).verified
    assert not tree.freeze((), timeout_s=0.05).verified


def test_the_account_is_read_from_what_lenderd_wrote(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert read_account(state) is None
    ours = tree.identify(US)
    with write_pid(state, Account(os.getuid(), (ours,))):
        found = read_account(state)
    assert found == (Account(os.getuid(), (ours,)) if os.getuid() else None)
    with write_pid(state):
        assert read_account(state) is None


def test_an_account_is_dedicated_only_where_nobody_can_log_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    privilege.check_dedicated("nobody")
    with pytest.raises(PrivilegeError, match="can log in"):
        privilege.check_dedicated("root")
    with pytest.raises(PrivilegeError, match="root starts"):
        privilege.check_dedicated(None)
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    with pytest.raises(PrivilegeError, match="root starts"):
        privilege.check_dedicated("nobody")


def test_on_a_mac_a_file_is_flushed_from_the_drives_cache(tmp_path: Path) -> None:
    code = (
        "import sys, fcntl, os\n"
        "sys.platform = 'darwin'; fcntl.F_FULLFSYNC = 51; asked = []\n"
        "real, fcntl.fcntl = fcntl.fcntl, lambda fd, what, *_: asked.append(what)\n"
        "del os.fdatasync\n"
        "from lender.state import durable\n"
        "from pathlib import Path\n"
        "durable.write_whole(Path(sys.argv[1]), b'kept')\n"
        "print(asked)"
    )
    path = tmp_path / "file"
    told = subprocess.check_output([sys.executable, "-c", code, str(path)], text=True)
    assert told.strip() == "[51, 51]", "the file and its folder"
    assert path.read_bytes() == b"kept"
