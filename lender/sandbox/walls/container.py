"""The walls of the oci runtime as crun's configuration (OCI runtime specification 1.0). Pure.

crun makes the container; what it lacks is put around it:

    unshare(1)      user, PID and mount namespaces; dies with us, and all in them dies with it
      sh, mount(8)  a private tmpfs for crun's state: nothing is left on disk, whoever is killed
        crun, as process 1 of that PID namespace
          the task, in user, mount, network, IPC, UTS and cgroup namespaces of its own

The task is not process 1: signals have their usual effect on it, and what it leaves behind is
reaped. Its /proc is that PID namespace's, read-only: neither the kernel nor its own weight on the
processor can be set there. It waits in a hook, all its namespaces standing, until it is let go.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final

from lender.sandbox.plan import WORK_FOLDER, Limits
from lender.sandbox.walls import bubblewrap

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATUS_FD, HOLD_FD, CONFIG_FD = 3, 4, 5
"""Descriptors of crun: told when the task stands ready, waited for, read for its configuration."""

COPY_FOLDER: Final = "_LIBCONTAINER_STATEDIR"
"""Environment variable of crun's: where it makes a name, for a moment of its start, for a read-only
view of its own program. Without it that is /tmp, and whoever is killed in that moment leaves it."""

HOST_VIEW: Final = "root"
"""Root folder, below the state folder, that shows the host's /usr as the process runtime does."""

# Where the state folder may be mounted, over whatever the host has there.
_STATE_FOLDERS = ("/run", "/mnt", "/srv", "/media", "/opt")
_NOBODY = 65534
_TMP_BYTES_MAX = 256 << 20
_SHM_BYTES_MAX = 64 << 20
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
)
# Process 1 in there is crun, which still has our descriptors. The task has none of them. crun says
# on standard input what it is about, and gives the container up if nobody is there to hear it any
# more (before 1.17): on a busy machine all of this may come first.
_HOLD = f"echo >/proc/1/fd/{STATUS_FD}; read -r said; read -r go </proc/1/fd/{HOLD_FD}"
_MOUNT = (
    'mount -t tmpfs -o mode=700,size=1m lender "$1" && cd "$1" && shift'
    # crun takes one hierarchy of cgroups or the other, and uses none.
    " && if [ -d /sys/fs/cgroup/unified ];"
    " then mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; fi"
)
_MAKE_HOST_VIEW = (
    f"mkdir -p {HOST_VIEW} && cd {HOST_VIEW}"
    " && mkdir usr etc etc/alternatives proc dev tmp work && : >etc/ld.so.cache"
    " && ln -s usr/bin bin && ln -s usr/lib lib && ln -s usr/lib64 lib64 && cd .."
)


def state_folder(needed: Sequence[str]) -> str | None:
    """A folder for crun's state, with nothing below it that the container needs; None if none is.

    Args:
        needed: absolute paths, without links.
    """
    for folder in _STATE_FOLDERS:
        if not any(PurePosixPath(path).is_relative_to(folder) for path in needed):
            return folder
    return None


def command(crun: str, folder: str, *, host_view: bool) -> list[str]:
    """The command line that ends in crun; its PATH must have mount(8).

    Args:
        crun: its real path.
        folder: see `state_folder`.
        host_view: make the root folder `HOST_VIEW`.
    """
    script = f"{_MOUNT} && {_MAKE_HOST_VIEW}" if host_view else _MOUNT
    return [
        *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--mount-proc"),
        *("--fork", "--kill-child=KILL", "--", "/bin/sh", "-c", f'{script} && exec "$@"', "sh"),
        *(folder, crun, "--root", f"{folder}/state", "--cgroup-manager", "disabled"),
        *("--log", f"file:/proc/self/fd/{STATUS_FD}"),
        *("run", "--bundle", folder, "--config", f"/proc/self/fd/{CONFIG_FD}", "task"),
    ]


def configuration(
    root: str,
    scratch: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: str,
    inputs: Mapping[str, str],
    limits: Limits,
    seccomp: bytes | None,
    brought: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What crun reads as config.json.

    Args:
        root: the root file system, never written to; `HOST_VIEW` for the host's.
        scratch: folder on the host that becomes /work.
        argv: the command line, not empty.
        env: the whole environment.
        folder: where the command starts.
        inputs: name below /work -> file on the host, bound read-only.
        limits: of the task.
        seccomp: the filter, as classic BPF.
        brought: path inside -> file or folder on the host, bound read-only.
    """
    shown = dict(brought) | {f"{WORK_FOLDER}/{name}": path for name, path in inputs.items()}
    # crun sets them before it makes the user namespace: unshare and crun itself count.
    rlimits = bubblewrap.resource_limits(limits) | {"nproc": limits.processes + 2}
    # Raw, so that both runtimes have the very same filter (crun(1), run.oci.seccomp_bpf_data).
    filters = {} if seccomp is None else {"run.oci.seccomp_bpf_data": _base64(seccomp)}
    return {
        "ociVersion": "1.0.2",
        "hostname": "lender",
        "root": {"path": root, "readonly": True},
        "process": {
            "user": {"uid": _NOBODY, "gid": _NOBODY},
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": folder,
            "noNewPrivileges": True,
            "capabilities": {
                name: []
                for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": value, "hard": value}
                for name, value in rlimits.items()
            ],
        },
        "mounts": [
            _mount("/proc", "/proc", "bind", "ro", "nosuid", "noexec", "nodev"),
            _tmpfs("/dev", 1 << 16, 0o755, "noexec", "ro"),
            _tmpfs("/dev/shm", min(limits.memory_bytes, _SHM_BYTES_MAX), 0o1777, "noexec"),  # noqa: S108 - inside
            _tmpfs("/tmp", min(limits.memory_bytes, _TMP_BYTES_MAX), 0o1777),  # noqa: S108 - inside
            _mount(WORK_FOLDER, scratch, "bind", "rw", "nosuid", "nodev"),
            *(
                _mount(place, path, "rbind", "ro", "nosuid", "nodev")
                for place, path in shown.items()
            ),
        ],
        "hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", _HOLD]}]},
        "annotations": filters,
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("user", "mount", "network", "ipc", "uts", "cgroup")
            ],
            "uidMappings": [_MAPPING],
            "gidMappings": [_MAPPING],
            "maskedPaths": list(_MASKED),
        },
    }


_MAPPING = {"containerID": _NOBODY, "hostID": 0, "size": 1}


def _mount(place: str, path: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": "bind", "source": path, "options": list(options)}


def _tmpfs(place: str, size_bytes: int, mode: int, *options: str) -> dict[str, Any]:
    words = ["nosuid", "nodev", f"size={size_bytes}", f"mode={mode:o}", *options]
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": words}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
