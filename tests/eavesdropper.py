"""Whoever lists processes all the time, and reads every log and file that others may."""

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import live_files

PAUSE_S = 0.02
LOOKS = 40
"""At one process: it may become another program, and may say otherwise what it is called."""

_SEED = re.compile(rb"S[OAUNCX][A-Z2-7]{56}")
_PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END")
_KEPT_IN = (".nk", ".creds", ".key", ".seed")


class Eavesdropper:
    """Finds whether a private key below `folder` was to be seen anywhere but in its own file.

    `with Eavesdropper(folder):` around whatever uses them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._heard: dict[bytes, str] = {}
        self._seen: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        if kind is None:
            self._check()

    def hear(self, text: str, where: str) -> None:
        """Note what a command has printed."""
        self._heard[text.encode()] = where

    def _listen(self) -> None:
        while not self._end.wait(PAUSE_S):
            for process in Path("/proc").glob("[0-9]*"):
                looks = self._seen.get(process.name, 0)
                if looks < LOOKS:
                    self._seen[process.name] = looks + 1
                    for name in ("cmdline", "environ"):
                        self._hear(process / name)

    def _hear(self, file: Path) -> None:
        try:
            said = file.read_bytes()
        except OSError:  # it has ended, or is another's
            return
        self._heard.setdefault(said, str(file))

    def _check(self) -> None:
        secrets: dict[bytes, Path] = {}
        for path, content in live_files.contents(self._folder):
            found = _SEED.findall(content)
            found += [line for body in _PRIVATE.findall(content) for line in body.split()]
            secrets |= dict.fromkeys(found, path)
            if found:
                assert path.suffix in _KEPT_IN, f"a private key stands in {path}"
                assert path.stat().st_mode & 0o077 == 0, f"others may read {path}"
        assert len(secrets) > 3, "there is something to be heard"
        pattern = re.compile(b"|".join(map(re.escape, secrets)))
        for said, where in self._heard.items():
            assert pattern.search(said) is None, f"a private key was to be seen in {where}"
        assert sum(where.endswith("cmdline") for where in self._heard.values()) > LOOKS // 10
