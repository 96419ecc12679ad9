"""The walls on macOS as the profile states them. None of this has met a Mac's kernel."""

import resource

import pytest
from seatbelt_reader import Line, read_line

from lender.sandbox.plan import Limits
from lender.sandbox.walls import seatbelt
from lender.sandbox.walls.seatbelt import View

SCRATCH = "/Users/lender/state/scratch/lease"
INPUT = f"{SCRATCH}/data/in.bin"
OWNER = "/Users/owner/.ssh/id_ed25519"
LIMITS = Limits(1, 64 << 20, 1.5, 100, 1 << 20, 8)


def line(
    scratch: str = SCRATCH, inputs: tuple[str, ...] = (INPUT,), view: View = seatbelt.PLAIN
) -> Line:
    return read_line(seatbelt.command(scratch, inputs, {"K": "v"}, ["sh", "-c", "true"], view))


def test_it_starts_from_nothing() -> None:
    found = line()
    assert found.program == "/usr/bin/sandbox-exec"
    assert found.forms[:2] == [["version", "1"], ["deny", "default"]]


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("process-exec", "/bin/sh"),
        ("process-exec", f"{SCRATCH}/program"),
        ("file-map-executable", "/usr/lib/libSystem.B.dylib"),
        ("file-read-data", "/usr/lib/libSystem.B.dylib"),
        ("file-read-data", "/System/Library/Frameworks/x"),
        ("file-read-data", INPUT),
        ("file-read-data", "/dev/urandom"),
        ("file-read-metadata", "/Users/lender"),
        ("file-write-data", "/dev/null"),
        ("file-write-create", f"{SCRATCH}/out"),
        ("file-write-unlink", f"{SCRATCH}/out"),
        ("sysctl-read", "hw.ncpu"),
        ("signal", "self"),
        ("process-info-pidinfo", "self"),
    ],
)
def test_what_a_plain_command_needs_is_there(operation: str, what: str) -> None:
    assert line().allows(operation, what)


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("file-read-data", OWNER),
        ("file-read-data", f"/System/Volumes/Data{OWNER}"),
        ("file-read-metadata", OWNER),
        ("file-read-data", "/Users/lender/state"),
        ("file-read-data", "/private/etc/passwd"),
        ("file-read-data", "/private/tmp/x"),
        ("file-read-data", f"{SCRATCH}-of-a-neighbour/x"),
        ("file-read-data", "/dev/ttys001"),
        ("file-read-data", "/dev/rdisk0"),
        ("file-write-create", "/private/tmp/x"),
        ("file-write-data", OWNER),
        ("file-write-data", "/dev/tty"),
        ("file-write-data", "/bin/sh"),
        ("file-write-data", INPUT),
        ("file-write-unlink", INPUT),
        ("file-write-setugid", f"{SCRATCH}/program"),
        ("file-write-flags", f"{SCRATCH}/out"),
        ("file-write-acl", f"{SCRATCH}/out"),
        ("file-ioctl", "/dev/null"),
        ("process-exec", "/Users/owner/bin/tool"),
        ("process-exec", "/Applications/Mail.app/Contents/MacOS/Mail"),
        ("process-fork", ""),
        ("process-info-pidinfo", "others"),
        ("signal", "others"),
        ("network-outbound", ""),
        ("network-bind", ""),
        ("system-socket", ""),
        ("mach-lookup", "com.apple.SecurityServer"),
        ("mach-lookup", "com.apple.coreservices.launchservicesd"),
        ("mach-register", "anything"),
        ("iokit-open", "IOSurfaceRootUserClient"),
        ("iokit-get-properties", ""),
        ("ipc-posix-shm-write-create", "/x"),
        ("nvram-get", ""),
        ("sysctl-read", "kern.proc.all"),
        ("sysctl-read", "kern.procargs2"),
        ("sysctl-write", "kern.hostname"),
        ("job-creation", ""),
        ("appleevent-send", ""),
        ("pseudo-tty", ""),
    ],
)
def test_whatever_is_the_owners_is_refused(operation: str, what: str) -> None:
    assert not line().allows(operation, what)


def test_the_jobs_words_are_told_apart_from_ours() -> None:
    argv = ["-p", "(version 1)(allow default)"]
    env = {"DYLD_INSERT_LIBRARIES": "evil.dylib", "-p": "x"}
    found = read_line(seatbelt.command(SCRATCH, [], env, argv))
    assert not found.allows("file-read-data", OWNER)
    assert found.rest == [
        *("/usr/bin/env", "-i", "--", "PATH=/usr/bin:/bin", f"HOME={SCRATCH}", f"TMPDIR={SCRATCH}"),
        *("DYLD_INSERT_LIBRARIES=evil.dylib", "-p=x", *argv),
    ]


@pytest.mark.parametrize("path", ["scratch", "/a/../b", "/a//b", "/a/", ""])
def test_a_path_that_the_kernel_would_write_otherwise_is_refused(path: str) -> None:
    """A rule for it would never match, and one that denies must."""
    with pytest.raises(ValueError, match="resolved"):
        line(path, ())
    with pytest.raises(ValueError, match="resolved"):
        line(SCRATCH, (path,))


@pytest.mark.parametrize("where", ["scratch", "inputs", "env", "argv"])
def test_a_zero_byte_ends_no_word(where: str) -> None:
    words = {
        one: "/x\0-p" if one == where else "/x" for one in ("scratch", "inputs", "env", "argv")
    }
    with pytest.raises(ValueError, match="zero byte"):
        seatbelt.command(words["scratch"], [words["inputs"]], {"K": words["env"]}, [words["argv"]])


def test_the_kernel_refuses_forks_besides() -> None:
    assert seatbelt.resource_limits(LIMITS)[resource.RLIMIT_NPROC] == 1
    assert seatbelt.resource_limits(LIMITS, 40)[resource.RLIMIT_NPROC] == 40 + LIMITS.processes


def test_with_an_account_of_its_own_it_may_start_processes_and_signal_its_own() -> None:
    found = line(view=View(forks=True))
    assert found.allows("process-fork")
    assert found.allows("signal", "same-sandbox")
    assert not found.allows("signal", "others")
    assert not found.allows("network-outbound")


PYTHON = "/Library/Frameworks/Python.framework/Versions/3.12"
PACKAGES = f"{PYTHON}/lib/python3.12/site-packages"


@pytest.mark.parametrize(
    ("operation", "what", "allowed"),
    [
        ("process-exec", f"{PYTHON}/bin/python3.12", True),
        ("file-read-data", f"{PYTHON}/lib/python3.12/os.py", True),
        ("file-map-executable", f"{PYTHON}/lib/python3.12/lib-dynload/math.so", True),
        ("file-read-metadata", "/Library/Frameworks", True),
        ("file-read-data", "/Library/Frameworks", False),
        ("file-read-data", f"{PACKAGES}/owners/secret.py", False),
        ("file-read-data", f"{PACKAGES}/cloudpickle/__init__.py", True),
        ("file-write-data", f"{PYTHON}/lib/python3.12/os.py", False),
        ("file-write-create", f"{PACKAGES}/cloudpickle/x", False),
        ("file-read-data", OWNER, False),
    ],
)
def test_an_interpreter_is_seen_with_what_is_allowed_of_its_packages(
    operation: str, what: str, *, allowed: bool
) -> None:
    view = View((PYTHON,), (PACKAGES,), (f"{PACKAGES}/cloudpickle",))
    assert line(view=view).allows(operation, what) == allowed
