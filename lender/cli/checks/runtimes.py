"""Which sandboxes hold here, and if one does not, what keeps it away."""

import os
import platform
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lender.cli.checks.check import Check
from lender.cli.owner import Told
from lender.sandbox.walls import enter

_ORDINARY_USER = "nobody"
_TEST_S = 15.0


def runtimes(told: Told, left_s: float) -> Iterator[Check]:
    """What lenderd's own self-test has shown, or the same test now where none has.

    Args:
        told: how lenderd answered.
        left_s: for the test.
    """
    told_of: dict[str, dict[str, Any]] = told.reply.get("runtimes") or {}
    try:
        tested = told_of or _test(min(_TEST_S, left_s))
        found = [_check(name, one) for name, one in tested.items()]
    except RuntimeError as error:
        yield Check("runtimes", "warning", f"the self-test could not be made: {error}")
        return
    yield from found
    yield from _walls()
    if any(one.get("late") for one in tested.values()):
        return  # they may work
    if all(check.level != "ok" for check in found):
        yield Check("runtimes", "blocker", "no sandbox works, so nothing can run", "see above")


def _walls() -> Iterator[Check]:
    command = enter.how_to_build()
    if command is not None:
        text = "the second wall around the files of commands and functions is not built"
        yield Check("runtimes.walls", "warning", text, f"{command}; then start lenderd again")


def _check(name: str, one: dict[str, Any]) -> Check:
    if one.get("available"):
        notes = "; ".join(map(str, one.get("notes") or ()))
        text = f"{name} works; {notes}" if notes else f"{name} works"
        return Check(f"runtime.{name}", "ok", text)
    mend = str(one.get("mend") or "")
    if one.get("late"):
        return Check(f"runtime.{name}", "warning", f"{name}: {one.get('reason')}", mend)
    if "user namespaces" in mend:
        mend = _namespaces_mend(Path("/proc/sys"))
    return Check(f"runtime.{name}", "warning", f"no {name}: {one.get('reason')}", mend)


def _test(within_s: float) -> dict[str, dict[str, Any]]:
    """Make the self-test; as root for an ordinary user, as lenderd would.

    Raises:
        RuntimeError: not even its processes can be started.
    """
    import asyncio  # noqa: PLC0415 - only doctor without a lenderd needs an event loop

    from lender.sandbox import selftest  # noqa: PLC0415
    from lender.sandbox.launcher import LauncherGoneError  # noqa: PLC0415

    user = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam(_ORDINARY_USER)
        user = entry.pw_uid, entry.pw_gid
    try:
        found = asyncio.run(selftest.check_alone(user, within_s))
    except LauncherGoneError as error:
        raise RuntimeError(str(error)) from error
    return {
        name: {**selftest.told(one), "late": isinstance(one, selftest.Unavailable) and one.late}
        for name, one in found.items()
    }


def _namespaces_mend(sysctls: Path) -> str:
    """What keeps an ordinary user from a namespace of their own: the one setting that does."""
    if _sysctl(sysctls, "kernel/unprivileged_userns_clone") == "0":
        return "sysctl -w kernel.unprivileged_userns_clone=1, and in /etc/sysctl.d to keep it"
    if _sysctl(sysctls, "user/max_user_namespaces") == "0":
        return "sysctl -w user.max_user_namespaces=15000, and in /etc/sysctl.d to keep it"
    if _sysctl(sysctls, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: install the profile bwrap-userns-restrict "
            "(package apparmor-profiles), or sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return "run inside a container or a virtual machine that allows user namespaces"


def _sysctl(sysctls: Path, name: str) -> str:
    try:
        return (sysctls / name).read_text().strip()
    except OSError:
        return ""


def python() -> Iterator[Check]:
    """Which interpreter runs all this."""
    yield Check("python", "ok", f"Python {platform.python_version()} at {sys.executable}")
