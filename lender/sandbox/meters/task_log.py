"""What a task writes to standard error, for who watches it: not too often and not too much. Pure.

A token bucket: a burst, then so many bytes a second. What is over is left out, and a line of ours
says how much that was.
"""

BURST_BYTES = 64 << 10
BYTES_PER_S = 16 << 10
EVERY_S = 0.1
TOLD_BYTES_MAX = BURST_BYTES + 1024
"""Of what is told at once, our own lines included."""

# What was left out goes on with so much at once: not a byte and a line of ours by turns.
_AGAIN_BYTES = 4096


class TaskLog:
    """The log of one task. Times are a monotonic clock's seconds."""

    def __init__(self, now: float) -> None:
        self._room_bytes = float(BURST_BYTES)
        self._filled_at = now
        self._told_at = now - EVERY_S
        self._untold = bytearray()
        self._left_out_bytes = 0
        self._in_a_line = False

    def add(self, now: float, piece: bytes) -> None:
        """Take what the task wrote."""
        room_bytes = self._room_bytes + (now - self._filled_at) * BYTES_PER_S
        self._room_bytes, self._filled_at = min(room_bytes, BURST_BYTES), now
        # What nobody has taken yet is bounded too.
        room_bytes = min(self._room_bytes, BURST_BYTES - len(self._untold))
        if self._left_out_bytes and room_bytes < _AGAIN_BYTES:
            room_bytes = 0
        fits = piece[: max(0, int(room_bytes))]
        if fits:
            self._say_what_was_left_out()
            self._untold += fits
            self._room_bytes -= len(fits)
            self._in_a_line = not fits.endswith(b"\n")
        self._left_out_bytes += len(piece) - len(fits)

    def due(self, now: float) -> bytes:
        """What is to be told by now; b"" when nothing is."""
        if not self._untold or now < self._told_at + EVERY_S:
            return b""
        self._told_at = now
        return self._take()

    def last(self) -> bytes:
        """What is left once the task has ended."""
        self._say_what_was_left_out()
        return self._take()

    def _take(self) -> bytes:
        told = bytes(self._untold)
        self._untold.clear()
        return told

    def _say_what_was_left_out(self) -> None:
        if self._left_out_bytes:
            line = f"[lender: {self._left_out_bytes} bytes left out]\n"
            said = (b"\n" if self._in_a_line else b"") + line.encode()
            self._untold += said
            self._room_bytes -= len(said)
            self._left_out_bytes, self._in_a_line = 0, False
