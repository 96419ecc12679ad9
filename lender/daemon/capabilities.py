"""What this machine can run: the self-test of each runtime, and what of it the owner offers."""

import logging
import platform
from collections.abc import Collection
from pathlib import Path

from lender.core.events import Capabilities
from lender.protocol.job import Runtime
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.runtimes import installed_python
from lender.sensors.gpu import GpuMeter

log = logging.getLogger(__name__)


async def find(
    launcher: Launcher, scratch: Path, cgroups: Subtree | None, offered: Collection[Runtime]
) -> tuple[Capabilities, dict[str, dict[str, object]]]:
    """Try every runtime for real; return what works and is offered, and a verdict on each."""
    found = await selftest.check(launcher, scratch, cgroups)
    works: set[Runtime] = set()
    verdicts: dict[str, dict[str, object]] = {}
    for runtime, verdict in found.items():
        missing = None if isinstance(verdict, selftest.Available) else verdict
        allowed = runtime in offered
        verdicts[runtime] = selftest.told(verdict)
        if not missing and not allowed:
            verdicts[runtime] |= {"available": False, "reason": "your settings leave it out"}
        if missing:
            log.warning("runtime %s is not offered: %s", runtime, missing.reason)
        elif allowed:
            works.add(runtime)
    capabilities = Capabilities(
        arch=platform.machine(),
        os=platform.system().lower(),
        runtimes=frozenset(works),
        gpu="nvidia" if GpuMeter.open() else "none",
        # We are the sandboxes' user by now, so what is found is what the self-test ran.
        python=installed_python.find().version if "python" in works else None,
    )
    return capabilities, verdicts
