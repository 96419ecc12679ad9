"""Who may submit, and how much: a TOML file in the state folder, changed while the broker runs."""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from broker.service.allowances import DEFAULT_TABLE, Submitters
from lender.service.places import make_folder

FILE_NAME = "submitters.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_HEADER = f"""\
# Who may submit. `lender-broker allow` and `forbid` write it anew, and it may be edited by hand:
# a running broker notices. A table for each, with its public key. What it does not say of weight,
# jobs_max, tasks_max, running_tasks_max, bytes_max and stored_bytes_max is as in [{DEFAULT_TABLE}],
# or as usual.
"""


class SubmittersError(Exception):
    """The file can't be used or changed as asked; says how to mend it."""


class SubmittersFile:
    """The table of submitters in one state folder."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE_NAME
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> Submitters:
        """Return who may submit; nobody where there is no file.

        Raises:
            SubmittersError: it says something else.
        """
        try:
            return Submitters.parse(tomllib.loads(self.path.read_text()))
        except FileNotFoundError:
            return Submitters()
        except (OSError, RecursionError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SubmittersError(f"can't read {self.path}: {error}; mend or remove it") from error
        except ValueError as error:
            raise SubmittersError(f"{self.path}: {error}") from error

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

    def allow(
        self, name: str, key: str | None = None, said: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Add a submitter, or change what is said of one; what is not named stays as it was.

        Where that is what the file says already, it is left alone, and may be read-only.

        Args:
            name: what people call it; `default` for what holds where nothing else is said.
            key: its public key; None for one that is there, and for `default`.
            said: weight and quotas.

        Raises:
            SubmittersError: not a name, not a public key, not a number that may be, or the file
                can't be written.
        """
        if not _NAME.fullmatch(name):
            raise SubmittersError(f"{name!r} is no name: use letters, digits, and . _ @ -")
        before = self.read()
        tables = before.dump()
        if name == DEFAULT_TABLE and key is not None:
            raise SubmittersError(f"{name!r} stands for all others: name it without a key")
        if name != DEFAULT_TABLE and key is None and name not in tables:
            raise SubmittersError(f"{name!r} is not allowed yet: name its public key as well")
        tables[name] = {**tables.get(name, {}), **({"key": key} if key else {}), **said}
        try:
            changed = Submitters.parse(tables)
        except ValueError as error:
            raise SubmittersError(str(error)) from error
        if changed.dump() != before.dump():
            self._write(changed)

    def forbid(self, name: str) -> None:
        """Remove a submitter. Its accepted jobs go on; it submits no more.

        Raises:
            SubmittersError: there is none of that name, or the file can't be written.
        """
        found = self.read()
        if name not in found.by_name:
            known = ", ".join(sorted(found.by_name)) or "nobody"
            raise SubmittersError(f"{name!r} was never allowed here; allowed: {known}")
        others = {one: what for one, what in found.by_name.items() if one != name}
        self._write(Submitters(found.default, others))

    def _write(self, submitters: Submitters) -> None:
        text = _HEADER
        for name, fields in submitters.dump().items():
            text += f"\n[{json.dumps(name)}]\n"
            text += "".join(f"{one} = {json.dumps(value)}\n" for one, value in fields.items())
        try:
            make_folder(self.path.parent)
            descriptor, draft = tempfile.mkstemp(dir=self.path.parent, prefix=FILE_NAME)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self.path)
        except OSError as error:
            raise SubmittersError(f"can't write {self.path}: {error.strerror}") from error
