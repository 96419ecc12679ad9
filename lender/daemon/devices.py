"""Looks for devices now and then, off the loop, and says which of them a sandbox is given."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lender.core.events import DevicesFound
from lender.daemon.settings import DaemonSettings
from lender.sandbox.plan import DeviceView
from lender.sandbox.port import PrepareFailedError
from lender.sensors.devices.accelerators import accelerators
from lender.sensors.devices.adapter import Adapter, Device, first_usable, labels_of
from lender.sensors.devices.host_tools import HostToolsAdapter
from lender.sensors.devices.phones import PhoneFarmAdapter

log = logging.getLogger(__name__)

PACE_S: Final = 30.0
"""Between two looks: some folders of sysfs are listed, and the owner's program is run."""
LOOK_S: Final = 60.0
"""One look takes no longer, or nothing is believed to be there until it ends."""
ROOT: Final = Path("/")


def adapters(settings: DaemonSettings, root: Path) -> list[Adapter]:
    """Return all that these settings ask for."""
    found = accelerators(root)
    if settings.announce:
        found.append(HostToolsAdapter(settings.announce, root))
    if settings.phones is not None:
        found.append(PhoneFarmAdapter(settings.phones.command, settings.phones.rules))
    return found


class DeviceWatch:
    """Keeps what the adapters found last.

    Each look is a thread of its own, which nobody waits for: a driver that hangs holds up neither
    the loop nor the end of the process, and no other look is begun beside it.
    """

    def __init__(
        self, adapters: Sequence[Adapter], tell: Callable[[DevicesFound], None], pace_s: float
    ) -> None:
        """Know of nothing yet; `tell` hears in the loop what may be offered, when that changes."""
        self._adapters = adapters
        self._tell = tell
        self._pace_s = pace_s
        self._found: tuple[Device, ...] = ()

    async def run(self, look_s: float = LOOK_S) -> None:
        """Look again and again; `look_s` is what one look may take."""
        while True:
            answer = self._begin()
            done, _ = await asyncio.wait({answer}, timeout=look_s)
            if not done:
                log.warning("looking for devices takes more than %.0f s: none is offered", look_s)
                self._take(())
            self._take(await answer)
            await asyncio.sleep(self._pace_s)

    def views(self, labels: Iterable[str]) -> tuple[DeviceView, ...]:
        """Return what a sandbox sees that is given these devices.

        Raises:
            PrepareFailedError: one of them is not there any more.
        """
        return tuple(map(self._view, labels))

    def facts(self) -> list[dict[str, Any]]:
        """Return what was found as JSON values, for its owner."""
        hidden = ("nodes", "folders")
        return [
            {
                **{name: value for name, value in asdict(one).items() if name not in hidden},
                "attributes": dict(one.attributes),
                "given": bool(one.nodes),
            }
            for one in self._found
        ]

    def _view(self, label: str) -> DeviceView:
        device = first_usable(self._found, label)
        if device is None:
            raise PrepareFailedError(f"the device {label} is not there any more")
        return DeviceView(device.nodes, device.folders)

    def _begin(self) -> asyncio.Future[tuple[Device, ...]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Device, ...]] = loop.create_future()

        def told(found: tuple[Device, ...]) -> None:
            if not answer.done():
                answer.set_result(found)

        def look() -> None:
            found = tuple(device for one in self._adapters for device in _found_by(one))
            with contextlib.suppress(RuntimeError):  # the loop has ended before us
                loop.call_soon_threadsafe(told, found)

        threading.Thread(target=look, name="devices", daemon=True).start()
        return answer

    def _take(self, found: tuple[Device, ...]) -> None:
        before, self._found = labels_of(self._found), found
        if (labels := labels_of(found)) != before:
            log.info("found here: %s", ", ".join(labels) or "no device")
            self._tell(DevicesFound(labels))


def _found_by(adapter: Adapter) -> Sequence[Device]:
    try:
        return adapter.find()
    except Exception:
        log.exception("one adapter of devices failed")
        return ()
