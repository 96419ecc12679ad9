"""lenderd that looks for devices below another root: `python lenderd_with_devices.py ROOT ...`.

There hailortcli is `ROOT/usr/bin/hailortcli`, and what it looks at does not wait for 30 s.
"""

import sys
from pathlib import Path

from lender.daemon import command, devices
from lender.sensors.devices import tool

ROOT = Path(sys.argv.pop(1))
devices.ROOT = ROOT  # type: ignore[misc] # that is what this is for
devices.PACE_S = 0.2  # type: ignore[misc]
tool.where = lambda name: str(ROOT / "usr/bin" / name)
command.command()
