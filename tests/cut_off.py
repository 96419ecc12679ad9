"""An operator's command that ends before one of its steps, whichever it is."""

from collections.abc import Iterable, Mapping

import pytest

from broker.deployment.folder import Deployment
from broker.deployment.servers import Servers


class CrashError(Exception):
    """The process ended here."""


class Steps:
    """Ends the process, as it were, before the step of this number; counts them."""

    def __init__(self, patched: pytest.MonkeyPatch, at: int | None) -> None:
        self.count, self.at = 0, at
        replace, remove, update = Deployment.replace, Deployment.remove, Servers.update

        def replaced(deployment: Deployment, files: Mapping[str, str]) -> None:
            for path, text in files.items():
                self._step()
                replace(deployment, {path: text})

        def removed(deployment: Deployment, path: str) -> None:
            self._step()
            remove(deployment, path)

        async def told(speaking: Servers, tokens: Iterable[str]) -> None:
            for token in tokens:
                self._step()
                await update(speaking, [token])

        patched.setattr(Deployment, "replace", replaced)
        patched.setattr(Deployment, "remove", removed)
        patched.setattr(Servers, "update", told)

    def _step(self) -> None:
        if self.count == self.at:
            raise CrashError
        self.count += 1
