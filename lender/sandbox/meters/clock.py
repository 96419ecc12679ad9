"""How long a task really ran: time that it stood still does not count."""


class RunningTime:
    """Adds up short steps and leaves out the long ones, in which the process was frozen.

    A paused task must not run into its time limit, and neither must one that the owner's own
    work kept off the processor.

    Attributes:
        elapsed_s: running time so far.
    """

    def __init__(self, now: float, step_s: float) -> None:
        self.elapsed_s = 0.0
        self._last = now
        self._step_s_max = 4 * step_s

    def advance(self, now: float) -> float:
        """Add the time since the last step, a long gap only as four steps; return the sum."""
        self.elapsed_s += min(now - self._last, self._step_s_max)
        self._last = now
        return self.elapsed_s
