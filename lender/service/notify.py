"""sd_notify(3): tells systemd about readiness and life, over a datagram socket."""

import asyncio
import os
import socket


def notify(state: str) -> bool:
    """Send `state` (`READY=1`, `STOPPING=1`, `WATCHDOG=1`); False where nobody asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A leading @ means the abstract namespace, whose names start with a zero byte (unix(7)).
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), target)
        except OSError:
            return False
    return True


def ask_for_time(seconds: float) -> bool:
    """Say that the end, begun or to begin now, may take so long: a unit's own bound steps back.

    Returns:
        False where nobody asked for such words.
    """
    return notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


def watchdog_interval_s() -> float | None:
    """Return how often to send `WATCHDOG=1`: half of what systemd waits for."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2e6


async def feed_watchdog() -> None:
    """Show systemd that the loop that this runs on goes round, for ever: one that hangs does not.

    Ends at once where nobody waits for it.
    """
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
