"""Tells this boot of the machine from any other. Standard library only."""

import functools
import sys


def _linux() -> str:
    """Source: random(4)."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _mac() -> str:
    """Source: XNU's bsd/kern/kern_sysctl.c, kern.bootsessionuuid; not yet run on a Mac."""
    from lender.sandbox.processes import sysctl  # noqa: PLC0415 - macOS only

    return sysctl.text("kern.bootsessionuuid")


_read = functools.cache(_mac if sys.platform == "darwin" else _linux)


def boot_id() -> str:
    """Another one after each boot; empty where the kernel does not say."""
    try:
        return _read()
    except OSError:
        return ""
