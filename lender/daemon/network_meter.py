"""What a lease's tasks move over the network, and may: by the file that their proxies count in."""

import contextlib
import logging
from pathlib import Path

from lender.sandbox.egress.counters import UNBOUNDED, Counters
from lender.sandbox.plan import Network
from lender.state.moved_bytes import MovedBytes

log = logging.getLogger(__name__)


class NetworkMeter:
    """Of one sandbox, for one of several leases that it works for in turn.

    Args:
        path: of the file.

    Attributes:
        before: what earlier leases moved in the same sandbox.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counters: Counters | None = None
        self._allowed: int | None = 0
        self.before = MovedBytes()

    def begin(self) -> None:
        """Count for another lease, which may move nothing yet."""
        self.before = self._sum()
        self.allow(0)

    def of(self, network: Network) -> Network:
        """Return the network of a sandbox that is about to be made, with its file.

        Raises:
            OSError: it can't be made.
        """
        self._counters = Counters.make(self._path)
        self.allow(self._allowed)
        return network._replace(counters=self._path)

    def allow(self, moved_bytes: int | None) -> None:
        """Let the lease move so much in all, both ways together; None: any amount."""
        self._allowed = moved_bytes
        if self._counters is None:
            return
        most = UNBOUNDED if moved_bytes is None else sum(self.before) + moved_bytes
        try:
            self._counters.allow(most)
        except OSError as error:
            log.warning("%s: what may be moved can't be said: %s", self._path.stem, error.strerror)

    def read(self) -> MovedBytes:
        """Return what the lease has moved."""
        now = self._sum()
        return MovedBytes(
            now.in_bytes - self.before.in_bytes, now.out_bytes - self.before.out_bytes
        )

    def close(self) -> None:
        """Forget it all; the sandbox is gone."""
        if self._counters is not None:
            self._counters.close()
            self._counters = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _sum(self) -> MovedBytes:
        return MovedBytes() if self._counters is None else MovedBytes(*self._counters.read()[:2])
