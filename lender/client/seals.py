"""Seals what a job is given and opens what comes back: see `lender.protocol.sealing`."""

import contextlib
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lender.client.errors import ContentFault, Rejected, UntrustedResult
from lender.client.records import Record
from lender.client.specs import Content
from lender.protocol import sealing
from lender.protocol.bounds import SEALED_TO_MAX
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec, Sealing
from lender.protocol.result import Terminal
from lender.protocol.sealing import SealBrokenError, purpose
from lender.protocol.signature import Signer


class Seal:
    """One job's: with its key, 32 random bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, spec: JobSpec, signer: Signer) -> "Seal | None":
        """Return the one of a job of this submitter's; None where nothing of it is sealed.

        Raises:
            ContentFault: the job's key can't be opened.
        """
        if spec.sealing is None:
            return None
        try:
            return cls(sealing.open_key(spec.sealing.keys[spec.submitter], signer))
        except SealBrokenError as error:
            raise ContentFault(
                f"job {spec.id} can't be opened ({error})", "use the key that it was sealed with"
            ) from error

    def sealed_to(self, submitter: str, lenders: Iterable[str] | None) -> Sealing:
        """Return what the specification says of who can open it.

        Raises:
            Rejected: they are none, or too many, or one of them is no key.
        """
        names = sorted(set(lenders or ()) - {submitter})
        if not names:
            raise Rejected(
                "sealing", "say which lenders may read it: the `trusted_lenders`, or `--trust`"
            )
        if len(names) > SEALED_TO_MAX:
            raise Rejected(
                "sealing", f"{len(names)} lenders: a job is sealed to at most {SEALED_TO_MAX}"
            )
        try:
            keys = {name: sealing.seal_key(self._key, name) for name in (submitter, *names)}
        except ProtocolError as error:
            raise Rejected(error.field, error.reason) from error
        return Sealing(keys=keys)

    def content(self, bound_to: bytes, content: Content, stack: contextlib.ExitStack) -> Content:
        """Return a content sealed: of a file, a file in a temporary folder.

        Args:
            bound_to: what it is sealed for.
            content: what is to be sealed.
            stack: removes that folder.

        Raises:
            ContentFault: it can't be read, or there is no room.
        """
        if isinstance(content, bytes):
            return sealing.seal(self._key, bound_to, content)
        try:
            with content.open("rb") as plain:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lender-sealed-"))
                path = Path(folder) / "sealed"
                with path.open("xb") as sealed:
                    sealed.writelines(sealing.sealed_pieces(self._key, bound_to, plain))
        except OSError as error:
            raise ContentFault(
                f"can't seal {content}: {error.strerror}",
                "name a file that you can read, and see that $TMPDIR has room for it",
            ) from error
        return path

    def value(self, task: int, content: bytes) -> bytes:
        """Return a value that came as a blob.

        Raises:
            ContentFault: its lender has not sealed it so.
        """
        try:
            return sealing.unseal(self._key, purpose("value", task), content)
        except SealBrokenError as error:
            raise _not_sealed("a value", error) from error

    def open_output(self, task: int, name: str, sealed: Path, target: Path) -> None:
        """Write an output's plain text, whole or not at all.

        Raises:
            ContentFault: its lender has not sealed it so.
            OSError: it can't be read or written.
        """
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with sealed.open("rb") as source, part.open("xb") as file:
                bound_to = purpose("output", task, name)
                file.writelines(sealing.opened_pieces(self._key, bound_to, source))
            part.replace(target)
        except SealBrokenError as error:
            raise _not_sealed(f"output {name}", error) from error
        finally:
            part.unlink(missing_ok=True)

    def record(self, record: Record) -> Record:
        """Return a record with its results as their tasks left them.

        Raises:
            UntrustedResult: one of them was not sealed by who had the job's key.
        """
        try:
            if isinstance(record, Terminal):
                if record.result is None:
                    return record
                opened = sealing.unseal_result(self._key, record.result)
                return record.model_copy(update={"result": opened})
            results = tuple(sealing.unseal_result(self._key, one) for one in record.results)
            return record.model_copy(update={"results": results})
        except SealBrokenError as error:
            raise UntrustedResult(record.job, record.lender, str(error)) from error


def _not_sealed(what: str, error: SealBrokenError) -> ContentFault:
    mend = "ask which lender sent it, and run the task again"
    return ContentFault(f"{what} can't be opened ({error})", mend)
