"""What this machine can run: the self-test of each runtime, and what of it the owner offers."""

import logging
import platform
from collections.abc import Collection
from pathlib import Path

from lender.core.events import Capabilities
from lender.protocol.job import Runtime
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.plan import RUNTIMES
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.runtimes import installed_python
from lender.sensors.gpu import GpuMeter

log = logging.getLogger(__name__)

_LEFT_OUT = selftest.Unavailable("your settings leave it out", "")
_OS = {"Linux": "linux", "Darwin": "macos"}


async def find(
    launcher: Launcher, scratch: Path, cgroups: Subtree | None, offered: Collection[Runtime]
) -> tuple[Capabilities, dict[str, dict[str, object]]]:
    """Try each runtime that is offered for real; return what works, and a verdict on every one."""
    tried = [runtime for runtime in RUNTIMES if runtime in offered]
    found = await selftest.check(launcher, scratch, cgroups, tried)
    works: set[Runtime] = set()
    for runtime, verdict in found.items():
        if isinstance(verdict, selftest.Available):
            works.add(runtime)
        else:
            log.warning("runtime %s is not offered: %s", runtime, verdict.reason)
    capabilities = Capabilities(
        arch=platform.machine(),
        os=_OS.get(platform.system(), "unknown"),
        runtimes=frozenset(works),
        gpu="nvidia" if GpuMeter.open() else "none",
        # We are the sandboxes' user by now, so what is found is what the self-test ran.
        python=installed_python.find().version if "python" in works else None,
    )
    return capabilities, {one: selftest.told(found.get(one, _LEFT_OUT)) for one in RUNTIMES}
