"""Who may submit: a TOML file in the state folder, changed while the broker runs."""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from lender.protocol.errors import ProtocolError
from lender.protocol.signature import check_public_key

FILE_NAME = "submitters.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_HEADER = "# Written by `lender-broker allow` and `forbid`: name = public key.\n"


class SubmittersError(Exception):
    """The file can't be used or changed as asked; says how to mend it."""


class SubmittersFile:
    """The table of submitters in one state folder."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE_NAME
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> dict[str, str]:
        """Return name and public key of each submitter; none where there is no file.

        Raises:
            SubmittersError: it is no table of names and public keys.
        """
        try:
            table = tomllib.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SubmittersError(f"can't read {self.path}: {error}; mend or remove it") from error
        for name, key in table.items():
            try:
                check_public_key(key if isinstance(key, str) else "")
            except ProtocolError as error:
                raise SubmittersError(f"{self.path}: {name}: {error.reason}") from error
        return table

    def changed(self) -> bool:
        """Tell whether the file is another one than at the last call that said so."""
        try:
            stat = self.path.stat()
            now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            now = (0, 0, 0)
        changed = now != self._seen
        self._seen = now
        return changed

    def allow(self, name: str, key: str) -> None:
        """Add a submitter, or give the name a new key.

        Raises:
            SubmittersError: not a name, not a public key, or the file can't be written.
        """
        if not _NAME.fullmatch(name):
            raise SubmittersError(f"{name!r} is no name: use letters, digits, and . _ @ -")
        try:
            check_public_key(key)
        except ProtocolError as error:
            raise SubmittersError(
                f"{key!r} is {error.reason}; `lender keygen` makes one"
            ) from error
        self._write({**self.read(), name: key})

    def forbid(self, name: str) -> None:
        """Remove a submitter. Its accepted jobs go on; it submits no more.

        Raises:
            SubmittersError: there is none of that name, or the file can't be written.
        """
        table = self.read()
        if name not in table:
            known = ", ".join(sorted(table)) or "nobody"
            raise SubmittersError(f"{name!r} was never allowed here; allowed: {known}")
        del table[name]
        self._write(table)

    def _write(self, table: Mapping[str, str]) -> None:
        lines = [f"{json.dumps(name)} = {json.dumps(key)}\n" for name, key in sorted(table.items())]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=self.path.parent, prefix=FILE_NAME)
            with os.fdopen(descriptor, "w") as file:
                file.write(_HEADER + "".join(lines))
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self.path)
        except OSError as error:
            raise SubmittersError(f"can't write {self.path}: {error.strerror}") from error
