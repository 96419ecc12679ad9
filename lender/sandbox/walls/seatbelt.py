"""The walls of the process runtime on macOS as a profile for sandbox-exec(1). Pure.

Written from documentation and not yet run on a Mac: Apple publishes the command (sandbox-exec(1),
sandbox(7)) but not the profile language. The names of its operations are those that Chromium's
sandbox/policy/mac/common.sb and Nix's sandbox-defaults.sb use. A name that a release of macOS does
not know fails the whole profile, so nothing starts.

Paths reach the profile as parameters (`-D key=value`, sandbox-exec(1)) and are never part of its
text: there is nothing that a quote, a bracket or a newline in one of them could end.

What can't be walled off is taken away: nothing in here may fork, unless lenderd has an account of
its own (`processes.account`). macOS has no PID namespaces and no subreapers, so a process that
forks twice and calls setsid would be nobody's child and in nobody's group, and neither pause nor
revoke could prove that it stands.
"""

import os
import resource
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from lender.sandbox.plan import FILE_MARGIN_BYTES, Limits

SANDBOX_EXEC: Final = "/usr/bin/sandbox-exec"
PATH: Final = "/usr/bin:/bin"

# Not all of /System: its Volumes/Data is the owner's disk.
_SYSTEM: Final = (
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/lib",
    "/usr/libexec",
    "/usr/sbin",
    "/usr/share",
    "/Library/Apple",
    "/Library/Developer/CommandLineTools",
    "/System/Cryptexes",
    "/System/Library",
    "/System/Volumes/Preboot/Cryptexes",
)
_SYSTEM_DATA: Final = ("/private/var/db/dyld", "/private/var/db/timezone")
_FILES: Final = (
    "/",  # the names in it, no more: the dynamic loader looks
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/private/etc/localtime",
    "/private/var/select/sh",  # which shell /bin/sh is
)
_LINKS: Final = ("/dev", "/etc", "/private", "/tmp", "/var")  # noqa: S108 - told apart, not used
_SYSCTLS: Final = (
    "kern.argmax",
    "kern.hostname",  # uname(3) fails without
    "kern.maxfilesperproc",
    "kern.osproductversion",
    "kern.osrelease",
    "kern.ostype",
    "kern.osvariant_status",
    "kern.osversion",
    "kern.secure_kernel",
    "kern.usrstack64",
    "kern.version",
    "sysctl.proc_cputype",
)


class View(NamedTuple):
    """What a sandbox sees and may do beyond the system's programs and its working folder.

    Attributes:
        readable: more folders and files to read and run from.
        hidden: what of them is not to be read after all.
        brought: what is to be read even if it lies in there.
        forks: it may start processes.
    """

    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    brought: tuple[str, ...] = ()
    forks: bool = False


PLAIN: Final = View()


def command(
    scratch: str,
    inputs: Sequence[str],
    env: Mapping[str, str],
    argv: Sequence[str],
    view: View = PLAIN,
) -> list[str]:
    """The whole command line, to be started with an empty environment.

    What the job says stands behind `--`, and its environment begins inside of the walls: a DYLD_
    variable would otherwise be obeyed by sandbox-exec itself where the owner has disabled system
    integrity protection.

    Args:
        scratch: the working folder, without a link in its path: the kernel compares what it has
            resolved. The only place that can be written, and the job's HOME and TMPDIR.
        inputs: files below it that can only be read.
        env: the environment of the command, less PATH, HOME and TMPDIR.
        argv: the job's own command line.
        view: what else it sees; paths without a link in them.

    Raises:
        ValueError: a path is not absolute or not resolved, or a zero byte would end a word.
    """
    kinds = {"INPUT": inputs, "READ": view.readable, "HIDE": view.hidden, "BRING": view.brought}
    paths = {"SCRATCH": scratch}
    for kind, values in kinds.items():
        paths |= {f"{kind}_{n}": path for n, path in enumerate(values)}
    for path in paths.values():
        if not path.startswith("/") or os.path.normpath(path) != path:
            raise ValueError(f"{path!r} is no absolute, resolved path")
    own = {"PATH": PATH, "HOME": scratch, "TMPDIR": scratch}
    words = [
        *(SANDBOX_EXEC, "-p", profile(len(inputs), view)),
        *(word for key, path in paths.items() for word in ("-D", f"{key}={path}")),
        *("--", "/usr/bin/env", "-i", "--"),
        *(f"{name}={value}" for name, value in {**own, **env}.items()),
        *argv,
    ]
    if any("\0" in word for word in words):
        raise ValueError("a zero byte in a name, an argument or the environment")
    return words


def resource_limits(limits: Limits, others: int | None = None) -> dict[int, int]:
    """What setrlimit(2) is to hold a command to; macOS has no prlimit(1).

    RLIMIT_NPROC counts all that the user runs, so 1 refuses every fork and every posix_spawn
    (XNU's bsd/kern/kern_fork.c, fork1) even where the profile's own rule should not hold.
    RLIMIT_AS is left out: the shared cache of system libraries is mapped into every process.

    Args:
        limits: of the task.
        others: processes that the user runs besides, where it may start some; None: it may not.
    """
    return {
        resource.RLIMIT_NPROC: 1 if others is None else others + limits.processes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_FSIZE: limits.scratch_bytes + FILE_MARGIN_BYTES,
    }


def profile(inputs: int, view: View = PLAIN) -> str:
    """The profile of a sandbox with so many inputs; a later rule wins over an earlier one."""
    own = "same-sandbox" if view.forks else "self"
    scratch = '(subpath (param "SCRATCH"))'
    system = _each("subpath", _SYSTEM)
    rules = [
        "(version 1)",
        "(deny default)",
        # These are allowed until they are denied.
        "(deny process-info* nvram* iokit-get-properties)",
        f"(allow process-info* (target {own}))",
        f"(allow signal (target {own}))",
        f"(allow process-exec file-map-executable {system} {scratch})",
        f"(allow file-read* {system} {_each('subpath', _SYSTEM_DATA)} {scratch})",
        f"(allow file-read* {_each('literal', _FILES)})",
        f"(allow file-read-metadata {_each('literal', _LINKS)})",
        '(allow file-read-metadata (path-ancestors (param "SCRATCH")))',
        f"(allow file-write-data {_each('literal', ('/dev/null', '/dev/zero'))})",
        f"(allow file-write* {scratch})",
        # The last two would keep us from deleting it: chflags(2), acl(3).
        "(deny file-write-setugid file-write-flags file-write-acl)",
        f'(allow sysctl-read (sysctl-name-prefix "hw.") {_each("sysctl-name", _SYSCTLS)})',
    ]
    rules += [f'(deny file-write* (literal (param "INPUT_{n}")))' for n in range(inputs)]
    rules += _readable("READ", len(view.readable))
    rules += [f'(deny file-read* (subpath (param "HIDE_{n}")))' for n in range(len(view.hidden))]
    rules += _readable("BRING", len(view.brought))
    # Last: whatever stands above.
    rules += ["(deny network*)", "(deny mach-lookup)"]
    rules += ["(allow process-fork)"] if view.forks else ["(deny process-fork)"]
    return "\n".join(rules)


def _readable(kind: str, count: int) -> list[str]:
    rules = []
    for n in range(count):
        place = f'(subpath (param "{kind}_{n}"))'
        rules.append(f"(allow file-read* process-exec file-map-executable {place})")
        rules.append(f'(allow file-read-metadata (path-ancestors (param "{kind}_{n}")))')
    return rules


def _each(kind: str, values: Sequence[str]) -> str:
    return " ".join(f'({kind} "{value}")' for value in values)
