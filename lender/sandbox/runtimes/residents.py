"""Who is inside of a python job's sandbox: what a system is asked about them."""

from typing import NamedTuple, Protocol


class Used(NamedTuple):
    """What was used since the interpreter came up.

    All but its own processor time may be 20 ms old.

    Attributes:
        cpu_s: its own processor time, and that of all that has ended in there.
        memory_bytes: what the interpreter holds now.
        attempts_blocked: tries to reach a network; None where none are counted.
    """

    cpu_s: float
    memory_bytes: int
    attempts_blocked: int | None


class Residents(Protocol):
    """The interpreter, and whatever a task started beside it."""

    def sweep(self) -> bool:
        """Kill what a task left running; False where that fails or the interpreter is gone."""
        ...

    def clear_temporary(self) -> None:
        """Empty the folders for temporary files that lie outside of the working folder.

        Raises:
            OSError: something can't be removed.
        """
        ...

    def has_inputs(self) -> bool:
        """Whether the inputs are still where they were.

        Raises:
            OSError: they are not.
        """
        ...

    def used(self, duration_s: float) -> Used:
        """What was used so far.

        Args:
            duration_s: of the task that has just ended.

        Raises:
            OSError: the interpreter is gone.
        """
        ...

    def count(self) -> int:
        """Processes and threads.

        Raises:
            OSError: the interpreter is gone.
        """
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...
