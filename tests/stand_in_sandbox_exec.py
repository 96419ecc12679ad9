"""Plays sandbox-exec(1) on Linux: reads the profile, keeps to what Landlock can of it, and execs.

Files that may be read, written and run are those that the profile names; connections and signals
to the outside are refused as the profile refuses them. Forks are left to RLIMIT_NPROC, which is set
before. Without Landlock (ABI 6) there are no walls, and it says so.

It is one process that becomes the command, as on a Mac. What Linux's own programs need besides is
added: a Mac's /usr/lib is elsewhere.
"""

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seatbelt_reader import Line, read_line

from lender.sandbox.walls import confine, landlock

EXECUTE, TRUNCATE, IOCTL, MAKE_SOCKET = 1 << 0, 1 << 14, 1 << 15, 1 << 9
READ = EXECUTE | 1 << 2 | 1 << 3
WRITE = READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | TRUNCATE
FILES = (1 << 16) - 1
OF_A_FILE = EXECUTE | 1 << 1 | 1 << 2 | TRUNCATE
# Audit architecture and number of connect(2).
CONNECT = {"x86_64": (0xC000003E, 42), "aarch64": (0xC00000B7, 203)}
LINUXS_OWN = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def main() -> None:
    line = read_line(sys.argv)
    if landlock.abi() < landlock.SCOPES_SINCE_ABI:
        sys.stderr.write("sandbox-exec: this kernel has no Landlock that could play it\n")
        sys.exit(os.EX_UNAVAILABLE)
    assert not line.allows("network-outbound")
    assert not line.allows("signal", "others")
    confine.never_gain_privileges()
    wall_off(line)
    refuse_connections()
    os.execve(line.rest[0], line.rest, {})


def wall_off(line: Line) -> None:
    ruleset = landlock._ruleset(FILES, landlock._TCP, landlock._SCOPES)
    scratch = line.parameters["SCRATCH"]
    readable = {*LINUXS_OWN, *line.parameters.values()}
    for path in readable:
        if path == scratch or not Path(path).exists():
            continue
        if any(hidden == path for key, hidden in line.parameters.items() if key.startswith("HIDE")):
            continue
        if path in LINUXS_OWN or line.allows("file-read-data", path):
            allow(ruleset, path, READ | (1 << 1 if path == "/dev/null" else 0))
    allow(ruleset, scratch, WRITE)
    landlock.restrict(ruleset)


def refuse_connections() -> None:
    architecture, number = CONNECT[platform.machine()]
    steps = ((0x20, 0, 0, 4), (0x15, 0, 3, architecture), (0x20, 0, 0, 0), (0x15, 0, 1, number))
    returns = ((0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
    program = b"".join(struct.pack("=HBBI", *one) for one in (*steps, *returns))
    content = ctypes.create_string_buffer(program, len(program))
    filtered = struct.pack("@HP", len(steps) + len(returns), ctypes.addressof(content))
    assert ctypes.CDLL(None).prctl(22, 2, filtered, 0, 0) == 0


def allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not Path(path).is_dir():
        rights &= OF_A_FILE
    rule = struct.pack("=Qi", rights, place)
    landlock._checked(landlock._libc.syscall(landlock._ADD_RULE, ruleset, 1, rule, 0), path)
    os.close(place)


main()
