"""The trial on Linux: what a sandbox must not reach here, and whether it was seen to."""

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lender.sandbox.plan import Runtime, TaskOutcome
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.trials import linux_probe, seen
from lender.sandbox.trials.seen import Seen
from lender.sandbox.walls import enter, landlock, seccomp

PROBE: Final = Path(linux_probe.__file__)
"""Text of a module whose `probe(host)` makes the task of a python job."""

NETWORKED: Final[frozenset[Runtime]] = frozenset({"process", "python"})
"""Runtimes whose sandboxes a proxy can stand beside."""

_ENVIRONMENT = ("HOME", "LENDER_JOB", "LENDER_TASK", "LENDER_TASK_COUNT", "PATH", "PWD")
# What shells other than Debian's set by themselves: bash as Fedora's sh, busybox.
_BY_SHELLS = frozenset({"OLDPWD", "SHLVL", "_"})
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_STATUS = {"CapPrm": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1"}
# What a shell can see of its walls, in the words of `probe`; the judge looks at the rest.
_SCRIPT = f"""
wall() {{ echo "wall $*"; }}
for place in / /usr /etc /dev /proc /sys; do
    (: > $place/lender-selftest) 2>/dev/null && wall "can write below $place"
done
for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /dev/kmsg; do
    (: >> $file) 2>/dev/null && wall "can write $file"
done
for place in /home /root /var /run/user /sys/class/net; do
    [ -e $place ] && wall "sees $place"
done
for name in $(tail -n +3 /proc/net/dev | cut -d: -f1); do
    [ $name = lo ] || wall "sees network interface $name"
done
[ -z "$(tr -d '\\0' < /proc/1/environ 2>/dev/null)" ] || wall "the environment of process 1 shows"
unshare --user true 2>/dev/null && wall "can make a user namespace"
(: > here) 2>/dev/null || wall "can't write its working folder"
[ -e {enter.PLACE} ] && echo entered
env | while IFS= read -r line; do echo "env ${{line%%=*}}"; done
ls -l /proc/self/ns
cat /proc/self/status
"""
# By a shell that can open connections; what it hears has to be a refusal.
_ASK = """
command -v bash > /dev/null || wall "its proxy can't be tried: no bash in /usr/bin"
bash -c 'for place; do
    exec 3<> /dev/tcp/127.0.0.1/{proxy} || exit
    printf "CONNECT $place HTTP/1.1\\r\\n\\r\\n" >&3
    read -r -t 5 answer <&3
    case $answer in *" 403 "*) ;; *) echo "wall gets to $place by its proxy: $answer" ;; esac
done' bash {places} 2> /dev/null || wall "its proxy can't be reached"
"""
MENDS: Final = {
    "(bwrap) is not installed": "install the package bubblewrap",
    "(package crun)": "install the package crun",
    "wasmtime": "install wasmtime; it has no wheel for 32-bit ARM",
    "as root": "name an ordinary user in the setting `user`",
    "uid map": "allow user namespaces for /usr/bin/bwrap (AppArmor: a profile with `userns,`)",
    "RTM_NEWADDR": "allow user namespaces for /usr/bin/bwrap (AppArmor: a profile with `userns,`)",
    "namespace": "allow unprivileged user namespaces (sysctl user.max_user_namespaces)",
}


@contextlib.contextmanager
def host() -> Iterator[dict[str, Any]]:
    """What no sandbox may reach, and what it may see, for `probe`."""
    namespaces = {}
    for kind in _NAMESPACES:
        with contextlib.suppress(OSError):
            namespaces[kind] = os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - the text alone
    abstract = f"\0lender-selftest-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen(1)
        yield {
            "port": loopback.getsockname()[1],
            "abstract": abstract,
            "namespaces": namespaces,
            "environment": _ENVIRONMENT,
            "filtered": seccomp.program() is not None,
            "enter": enter.PLACE,
        }


def command(host: dict[str, Any]) -> tuple[str, ...]:
    """What runs where a job is a command."""
    if "proxy" not in host:
        return "sh", "-c", _SCRIPT
    places = " ".join(f"'{place}'" for place in linux_probe.not_to_reach(host["port"]))
    return "sh", "-c", _SCRIPT + _ASK.format(places=places, proxy=host["proxy"])


def see(runtime: Runtime, outcome: TaskOutcome, host: dict[str, Any]) -> Seen:
    """What a task that has succeeded shows of its walls.

    Raises:
        ValueError, LookupError, TypeError: it does not say what it was asked.
    """
    if runtime == "wasm":
        # Nobody prepares it where the kernel has Landlock and its rules don't hold.
        entered = landlock.abi() >= landlock.FILES_SINCE_ABI
        return Seen(seen.of_module(outcome), entered)
    return seen.of_probe(outcome) if runtime == "python" else _of_script(outcome, host)


def notes(runtime: Runtime, keeps: frozenset[Kept], *, entered: bool) -> Iterator[str]:
    """What it does less well here than it could, for the owner to read."""
    if "cpu" not in keeps:
        yield "cores are kept by admission alone: no cgroup limits them"
    yield "disk is watched, not limited: it may be over its limit for a moment"
    if runtime == "wasm":
        if not entered:
            yield "no second wall around its process: no Landlock of version 2 or later"
        return
    if "memory" not in keeps:
        yield "memory is watched, and limited by address space: no cgroup limits it"
    if "processes" not in keeps:
        yield "processes are limited by RLIMIT_NPROC alone: no cgroup counts them"
    if not entered:
        yield "no second wall around its files: no Landlock, or its helper is not built"
    if not seccomp.program():
        yield "no system call filter for this processor: it can reserve disk space faster than seen"


def _of_script(outcome: TaskOutcome, host: dict[str, Any]) -> Seen:
    text = outcome.value.decode(errors="replace")
    lines = text.splitlines()
    walls = [line.removeprefix("wall ") for line in lines if line.startswith("wall ")]
    names = {line.removeprefix("env ") for line in lines if line.startswith("env ")}
    strange = names - {*host["environment"]} - _BY_SHELLS
    walls += [f"shows {name} of an environment" for name in sorted(strange)]
    inside = set(re.findall(r"\w+:\[\d+\]", text))
    walls += [f"shares {one}" for one in sorted(inside.intersection(host["namespaces"].values()))]
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    wanted = _STATUS | ({"Seccomp": "2"} if host["filtered"] else {})
    walls += [f"has {name} {status[name]}" for name in wanted if status[name] != wanted[name]]
    if not names or not inside:
        walls.append("its walls can't be seen: no env, or no ls, in /usr/bin")
    return Seen(walls, entered="entered" in lines)
