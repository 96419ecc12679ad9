"""Idle time of everybody at this machine's keyboards, mice, touchpads and touch screens: evdev.

Needs read access to /dev/input (root or the group `input`). What was typed never enters this
process: a device that has something to read is closed and opened again, which drops it, and only
the moment is kept. About 3 µs a device, 30 µs more for one that was touched.
Source: the kernel's Documentation/input/event-codes.rst.
"""

import contextlib
import os
import select
import time
from pathlib import Path

from lender.sensors.dbus import UnansweredError
from lender.sensors.sighting import Sighting

DEVICES = Path("/dev/input")
CLASS = Path("/sys/class/input")

_RESCAN_S = 10.0
_EV_KEY, _EV_REL, _EV_ABS = 1, 2, 3
_BTN_LEFT, _BTN_JOYSTICK, _BTN_GAMEPAD, _BTN_TOUCH = 0x110, 0x120, 0x130, 0x14A
_KEYS = range(1, 32)  # a keyboard has all of them, a power button or a remote control does not
_INPUT_PROP_ACCELEROMETER = 6


class EvdevIdle:
    """Watches the devices of people; lid switches, power buttons and sensors are none."""

    name = "evdev"
    pace_s = 1.0

    def __init__(self, devices: Path = DEVICES, described_in: Path = CLASS) -> None:
        self._devices = devices
        self._described_in = described_in
        self._open: dict[str, int] = {}
        self._rescan_at = 0.0
        self._last_input_at = time.monotonic()

    def read(self) -> list[Sighting]:
        """Return when a device was last touched, at most since the first call.

        Raises:
            UnansweredError: no device that we may read.
        """
        now = time.monotonic()
        if now >= self._rescan_at:
            self._rescan_at = now + _RESCAN_S
            self._rescan()
        if self._touched():
            self._last_input_at = now
        if not self._open:
            raise UnansweredError(f"no input device in {self._devices} that we may read")
        return [Sighting(self.name, last_input_at=self._last_input_at)]

    def close(self) -> None:
        """Close all devices."""
        for name in list(self._open):
            self._drop(name)

    def _touched(self) -> bool:
        poll = select.poll()
        names = {fd: name for name, fd in self._open.items()}
        for fd in names:
            poll.register(fd, select.POLLIN)
        touched = False
        for fd, events in poll.poll(0):
            self._drop(names[fd])
            if events & select.POLLIN:
                touched = True
                self._take(names[fd])
        return touched

    def _rescan(self) -> None:
        with contextlib.suppress(OSError):
            present = {path.name for path in self._devices.glob("event*")}
            for name in self._open.keys() - present:
                self._drop(name)
            for name in present - self._open.keys():
                if is_for_people(self._described_in / name / "device"):
                    self._take(name)

    def _take(self, name: str) -> None:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            self._open[name] = os.open(self._devices / name, flags)

    def _drop(self, name: str) -> None:
        os.close(self._open.pop(name))


def is_for_people(device: Path) -> bool:
    """Tell from its capabilities whether a device is one that hands use.

    Args:
        device: its folder below /sys/class/input.
    """
    try:
        events = _bits(device / "capabilities" / "ev")
        keys = _bits(device / "capabilities" / "key")
        properties = _bits(device / "properties")
    except (OSError, ValueError):
        return False
    if properties >> _INPUT_PROP_ACCELEROMETER & 1:
        return False
    moves = events >> _EV_REL & 1 or events >> _EV_ABS & 1
    buttons = (_BTN_LEFT, _BTN_JOYSTICK, _BTN_GAMEPAD, _BTN_TOUCH)
    has_button = any(keys >> button & 1 for button in buttons)
    is_keyboard = all(keys >> key & 1 for key in _KEYS)
    return bool(events >> _EV_KEY & 1) and (is_keyboard or bool(moves and has_button))


def _bits(path: Path) -> int:
    """Return a capability bitmap: longs in hexadecimal, the highest first."""
    long_bits = 8 * (8 if os.uname().machine.endswith("64") else 4)
    value = 0
    for word in path.read_text().split():
        value = value << long_bits | int(word, 16)
    return value
