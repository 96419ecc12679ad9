"""Whether the machine slows itself down for heat or power right now.

- Raspberry Pi: the firmware's word, bits 0 to 3 of `get_throttled` (under-voltage, capped,
  throttled, soft temperature limit; the bits from 16 on are about the past). From sysfs, 10 µs;
  where that is missing by `vcgencmd`, started every 10 s at most and never waited for.
- Intel: counters of throttling events and of their time that grew since the reading before
  (Documentation/admin-guide/abi-testing: thermal_throttle), 6 µs for each file, every 5 s at most.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lender.sensors import kernel_file
from lender.sensors.pace import Paced

EVERY_S = 5.0
COMMAND_EVERY_S = 10.0
_FIRMWARE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_CPUS = Path("/sys/devices/system/cpu")
_NOW_BITS = 0xF
_TOLD_BYTES = 256


class ThrottlingSensor:
    """The first of these sources that the machine has; without any it is never throttled.

    Attributes:
        source: `firmware`, `vcgencmd`, `thermal_throttle`, or "" for none.
        fault: what is wrong with the source, in words. Nonsense from the firmware counts as
            throttled; a command that fails (it needs the group `video`) counts as no source.
    """

    def __init__(
        self,
        firmware: Path = _FIRMWARE,
        cpus: Path = _CPUS,
        command: Sequence[str] | None = None,
    ) -> None:
        """Look for the sources; `command`: what to run instead of an installed vcgencmd."""
        self._firmware = firmware
        self._command = tuple(command or ())
        if command is None and (found := shutil.which("vcgencmd")):
            self._command = (found, "get_throttled")
        self._counters = sorted(
            str(path)
            for pattern in ("*_throttle_count", "*_throttle_total_time_ms")
            for path in cpus.glob(f"cpu[0-9]*/thermal_throttle/{pattern}")
        )
        self._counts: list[int | None] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False
        self.fault = ""
        if firmware.exists():
            self.source, ask, every_s = "firmware", self._ask_firmware, EVERY_S
        elif self._command:
            self.source, ask, every_s = "vcgencmd", self._ask_command, COMMAND_EVERY_S
        else:
            self.source = "thermal_throttle" if self._counters else ""
            ask, every_s = self._ask_counters, EVERY_S
        self._paced = Paced(ask, every_s)

    def read(self, now: float) -> bool:
        """Whether it was so at the last look."""
        if self._process is not None and self._process.poll() is not None:
            self._told = self._hear(self._process)
            self._process = None
        throttled = self._paced.read(now)
        return self._told if self.source == "vcgencmd" else throttled

    def close(self) -> None:
        """End a command that still runs."""
        if self._process is not None:
            self._process.kill()
            self._hear(self._process)
            self._process = None

    def _ask_firmware(self) -> bool:
        bits = _bits(kernel_file.read(self._firmware))
        self.fault = "" if bits is not None else f"{self._firmware} makes no sense"
        return bits is None or bits & _NOW_BITS != 0

    def _ask_counters(self) -> bool:
        before, self._counts = self._counts, [kernel_file.number(path) for path in self._counters]
        # Of a counter that can't be read (its CPU was taken offline) nothing is known.
        return any(
            old is not None and new is not None and new > old
            for old, new in zip(before, self._counts, strict=False)
        )

    def _ask_command(self) -> bool:
        """Start it; what it says is heard at a later reading. A hung one is ended."""
        self.close()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            self.fault = f"{self._command[0]}: {error.strerror}"
        return False

    def _hear(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.stdout is not None
        with process.stdout as out:
            told = out.read(_TOLD_BYTES)
        bits = _bits(told.strip().removeprefix(b"throttled="))
        failed = process.wait() != 0 or bits is None
        self.fault = f"{self._command[0]} tells nothing; is lenderd's user in group video?"
        if failed or bits is None:
            return False
        self.fault = ""
        return bits & _NOW_BITS != 0


def _bits(content: bytes | None) -> int | None:
    """A hexadecimal number, with or without 0x."""
    try:
        return None if content is None else int(content, 16)
    except ValueError:
        return None
