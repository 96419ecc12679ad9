"""The shipped units: filled in for this machine, marked as ours, known again when met. Pure.

A file of ours has a line with the SHA-256 of all its other lines, so whether its owner edited it
shows without a record of what was written.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Literal
from xml.sax.saxutils import escape

Known = Literal["ours", "edited", "foreign"]

_MARK = re.compile(r"^.*written by `lender install`, sha256 ([0-9a-f]{64}).*\n", re.MULTILINE)
_EXEC = re.compile(r"^(Exec\w+=)(lender(?:d|-broker)?)(?=\s|$)", re.MULTILINE)
_ARGUMENT = re.compile(r"(<key>ProgramArguments</key>\s*<array>\s*<string>)([^<]+)(?=</string>)")
_HOME = re.compile(r"(?<=<string>)~(?=/)")
_PLAIN = re.compile(r"[A-Za-z0-9_./+@:,=~-]+")
_NO_PATH = re.compile(r"[\x00-\x1f\x7f\"'\\$]")


class PathError(ValueError):
    """A program lies where a service can't name it."""


def unit(text: str, programs: Mapping[str, str]) -> str:
    """Return a unit of systemd with the full paths of its programs.

    Args:
        text: as shipped, programs by their names.
        programs: name -> path.

    Raises:
        PathError: systemd has no way to write such a path (systemd.service(5), "Command lines").
    """
    return _EXEC.sub(lambda met: met[1] + _word(programs[met[2]]), text)


def plist(text: str, programs: Mapping[str, str], home: str) -> str:
    """Return a property list of launchd with the full paths of its program and of its log.

    Args:
        text: as shipped, the program by its name, the user's home as `~`.
        programs: name -> path.
        home: the user's.
    """
    text = _ARGUMENT.sub(lambda met: met[1] + escape(programs[met[2]]), text)
    return _HOME.sub(lambda _: escape(home), text)


def marked(text: str) -> str:
    """Return a file with our mark: first line of a unit, second of a property list."""
    said = f"written by `lender install`, sha256 {_digest(text)}"
    if not text.startswith("<?xml"):
        return f"# {said}: changes belong into a drop-in (systemctl edit)\n{text}"
    head, rest = text.split("\n", 1)
    return f"{head}\n<!-- {said} -->\n{rest}"


def bare(text: str) -> str:
    """Return a file without our mark."""
    return _MARK.sub("", text, count=1)


def known(text: str) -> Known:
    """Tell whose a file is that was met where ours would be."""
    mark = _MARK.search(text)
    if mark is None:
        return "foreign"
    return "ours" if mark[1] == _digest(bare(text)) else "edited"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _word(path: str) -> str:
    if _NO_PATH.search(path):
        raise PathError(f"systemd can't start {path!r}: install lender in another folder")
    path = path.replace("%", "%%")
    return path if _PLAIN.fullmatch(path) else f'"{path}"'
