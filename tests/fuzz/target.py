"""What a fuzz target is, and what no input may do to one."""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

CORPUS: Final = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX: Final = 8 << 10
"""Of what is made up: what goes wrong nearly always does so in little."""
MEMORY_BYTES_MAX: Final = 160 << 20
"""Of one input, however large it is: what hostile nesting may have MessagePack set aside (see
`bounds.LIST_ENTRIES_MAX`), and as much again."""
CPU_S_MAX: Final = 5.0
"""Of one input: far more than any takes, far less than a slow one of 8 KiB does."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder.

    Attributes:
        name: of its folder in the corpus, too.
        run: gives it an input. What is taken and what is refused in the decoder's own words
            returns; what is raised is a finding, so `run` asserts whatever must hold.
        seeds: what an honest peer sends.
        reads: the calls of ours that take these bytes apart, as `calls.py` names them.
        words: pieces of the format.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    reads: tuple[str, ...] = ()
    words: tuple[bytes, ...] = ()

    def corpus(self) -> dict[str, bytes]:
        """Inputs that are kept, by name: the seeds, and what was found and mended."""
        kept = {f"seed-{number}": seed for number, seed in enumerate(self.seeds)}
        for path in sorted((CORPUS / self.name).glob("*")):
            kept[path.name] = path.read_bytes()
        return kept

    def attack(self, data: bytes) -> None:
        """Run it within its bounds.

        Raises:
            AssertionError: it took too much.
            Exception: whatever the decoder raised that is not its own error.
        """
        tracemalloc.start()
        started_s = time.process_time()
        try:
            self.run(data)
            took_s = time.process_time() - started_s
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert took_s < CPU_S_MAX, f"{len(data)} bytes took {took_s:.1f} s of processor time"
        assert peak_bytes < MEMORY_BYTES_MAX, f"{len(data)} bytes took {peak_bytes} of memory"


def taken(
    by: type[Exception] | tuple[type[Exception], ...], parse: Callable[..., T], *arguments: object
) -> T | None:
    """What `parse` makes of them; None where it refuses in its own words, which are `by`."""
    try:
        return parse(*arguments)
    except by:
        return None


def why_not(by: type[Exception], parse: Callable[..., object], *arguments: object) -> str:
    """In which words `parse` refuses them; empty where it does not."""
    try:
        parse(*arguments)
    except by as error:
        return str(error)
    return ""
