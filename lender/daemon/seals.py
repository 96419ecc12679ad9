"""Opens what a sealed job is given, and seals what it leaves: only this lender holds its key."""

import asyncio
import io
import os
import tempfile
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

from lender.protocol import sealing
from lender.protocol.job import JobSpec
from lender.protocol.sealing import purpose
from lender.protocol.signature import Signer
from lender.sandbox.plan import TaskOutcome

_PIECES_AT_ONCE = 64
"""4 MiB: between two of these an owner's pause is heard."""


class Seals:
    """The keys of sealed jobs, as far as they are sealed to this lender.

    Args:
        signer: this lender's identity.
        drafts: folder for files that never have a name, so that no crash leaves one.
    """

    def __init__(self, signer: Signer, drafts: Path) -> None:
        self._signer = signer
        self._drafts = drafts

    def of(self, spec: JobSpec) -> "Seal | None":
        """Return what opens and seals for a job; None where nothing of it is sealed.

        Raises:
            SealBrokenError: it is sealed to others.
        """
        if spec.sealing is None:
            return None
        sealed = spec.sealing.keys.get(self._signer.public_key, "")
        return Seal(sealing.open_key(sealed, self._signer), self._drafts)


class Seal:
    """One job's."""

    def __init__(self, key: bytes, drafts: Path) -> None:
        self._key = key
        self._drafts = drafts

    async def open_file(
        self, source: Path, bound_to: bytes, target: Path, go_on: Callable[[], Awaitable[None]]
    ) -> None:
        """Write the plain text of `source` to `target`, mode 0444; what fails leaves it cut short.

        Args:
            source: the sealed content.
            bound_to: what it has to be sealed for.
            target: a new file.
            go_on: awaited again and again; returns when the next pieces may be opened.

        Raises:
            SealBrokenError: it was not sealed by the job's key, or not for this.
            OSError: a file can't be read or written.
        """
        with source.open("rb") as sealed, target.open("xb") as plain:
            os.fchmod(plain.fileno(), 0o444)
            pieces = sealing.opened_pieces(self._key, bound_to, sealed)
            while some := await asyncio.to_thread(lambda: list(islice(pieces, _PIECES_AT_ONCE))):
                await go_on()
                await asyncio.to_thread(plain.writelines, some)

    def outcome(self, outcome: TaskOutcome) -> TaskOutcome:
        """Return how a task ended with all that it said sealed."""
        said = sealing.seal_words(self._key, outcome.task, outcome.error, outcome.stderr_tail)
        value = self.content(purpose("value", outcome.task), outcome.value)
        # On the way it is known how a task ended, and no more.
        ended_oddly = outcome.error is not None and outcome.exit_code is None
        error = "its error is sealed" if ended_oddly and outcome.limit is None else None
        return outcome._replace(value=value, stderr_tail=said, error=error)

    def content(self, bound_to: bytes, content: bytes) -> bytes:
        """Return a content sealed."""
        return sealing.seal(self._key, bound_to, content)

    def file(self, bound_to: bytes, plain: io.BufferedReader) -> io.BufferedReader:
        """Return the sealed content of a file that stands at its start; close it.

        Raises:
            OSError: it can't be read, or there is no room.
        """
        with tempfile.TemporaryFile(dir=self._drafts) as sealed:
            sealed.writelines(sealing.sealed_pieces(self._key, bound_to, plain))
            sealed.seek(0)
            return os.fdopen(os.dup(sealed.fileno()), "rb")
