"""How much of the fleet each submitter has had, weighed against what it is entitled to."""

from collections.abc import Iterable, Mapping
from math import log
from typing import Final

from broker.core.matching.need import Amounts, Need

HALF_LIFE_S = 1800.0
"""Use that is this old counts half."""

HELD_S = 60.0
"""What is leased counts as if it had been used for so long already.

So that of two submitters with equal use the one that holds less goes first, and whoever comes
while another holds everything gets the next that is free.
"""

_MEAN_LIFE_S: Final = HALF_LIFE_S / log(2)
_HALVES_MAX = 64.0
_FORGOTTEN = 1e-6
_RESIZED = 0.125
_OUTDATED = -1


class _Account:
    """One submitter's, by resource: cores, bytes of memory, bytes of GPU memory.

    What it has used by `now`, in the currency of the epoch, is `used + growth * running`: a lease
    that runs is never brought up to date, and costs something when it starts and ends only.
    """

    __slots__ = ("held", "leases", "level", "level_of", "running", "used", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.level = 0.0
        self.level_of = _OUTDATED
        """The state of the shares in which that was worked out, for it is asked for often."""
        self.leases = 0
        self.used = [0.0, 0.0, 0.0]
        self.running = [0.0, 0.0, 0.0]
        self.held = [0.0, 0.0, 0.0]


class Shares:
    """Each submitter's level: its dominant share of the fleet, over its weight.

    A share is use over what the fleet lends, of whichever resource that is most (Ghodsi and
    others, Dominant Resource Fairness, NSDI 2011). Instead of shrinking all old use as time
    passes, use is counted larger the later it is: the order is the same. So levels only grow,
    until a lease ends.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._accounts: dict[str, _Account] = {}
        self._epoch = 0.0
        self._growth = 1.0
        self._fleet = Amounts()
        self._per_unit = (1.0, 1.0, 1.0)
        self.version = 0
        """Grows when levels have changed in other ways than by leases."""
        self._moment = 0
        """Grows when levels have changed in other ways than by their submitter's leases."""

    def advance(self, now: float) -> None:
        """Let time pass; `now` is in seconds since the epoch of the clock."""
        halves = (now - self._epoch) / HALF_LIFE_S
        if halves > _HALVES_MAX:
            self._begin_again(2.0**-halves)
            self._epoch, halves = now, 0.0
        self._growth = 2.0**halves
        self._moment += 1

    def shift(self, by_s: float) -> None:
        """Go on as if the clock had not jumped by `by_s`."""
        self._epoch += by_s

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Take other weights: greater than 0, and 1 for those that are not named."""
        self._weights = weights
        for submitter, account in self._accounts.items():
            account.weight = weights.get(submitter, 1.0)
        self._change()

    def resize(self, fleet: Amounts) -> None:
        """Take shares of what the fleet lends now; small changes are left for later."""
        before = self._fleet
        if (
            abs(fleet.cores - before.cores) <= _RESIZED * before.cores
            and abs(fleet.memory_bytes - before.memory_bytes) <= _RESIZED * before.memory_bytes
            and abs(fleet.vram_bytes - before.vram_bytes) <= _RESIZED * before.vram_bytes
        ):
            return
        self._fleet = fleet
        self._per_unit = (
            1.0 / max(1.0, fleet.cores),
            1.0 / max(1.0, fleet.memory_bytes),
            1.0 / max(1.0, fleet.vram_bytes),
        )
        self._change()

    def level(self, submitter: str) -> float:
        """Return how much a submitter has had and holds; who has the least goes first."""
        account = self._accounts.get(submitter)
        if account is None:
            return 0.0
        if account.level_of == self._moment:
            return account.level
        account.level_of = self._moment
        account.level = self._level(account, HELD_S)
        return account.level

    def _level(self, account: _Account, held_s: float) -> float:
        run, hold = self._growth * _MEAN_LIFE_S, self._growth * held_s
        cores, memory, vram = account.used
        cores_run, memory_run, vram_run = account.running
        cores_held, memory_held, vram_held = account.held
        per_core, per_byte, per_vram_byte = self._per_unit
        level = max(
            (cores + run * cores_run + hold * cores_held) * per_core,
            (memory + run * memory_run + hold * memory_held) * per_byte,
            (vram + run * vram_run + hold * vram_held) * per_vram_byte,
        )
        return level / account.weight

    def holds_any(self, submitter: str) -> bool:
        """Tell whether a submitter has leases."""
        account = self._accounts.get(submitter)
        return account is not None and account.leases > 0

    def leases_of(self, submitter: str) -> int:
        """Return how many leases a submitter has."""
        account = self._accounts.get(submitter)
        return 0 if account is None else account.leases

    def lift(self, submitter: str, above: Iterable[str]) -> None:
        """Count a submitter as having used as much as whoever has used least of `above`.

        Of these only those count that have leases: who can't be served may be at any level.
        """
        served = (self._account(one) for one in above if self.holds_any(one))
        levels = [self._level(one, held_s=0.0) for one in served]
        if not levels:
            return
        floor = min(levels)
        account = self._account(submitter)
        run_s = self._growth * _MEAN_LIFE_S
        for which, per_unit in enumerate(self._per_unit):
            least = floor * account.weight / per_unit - run_s * account.running[which]
            account.used[which] = max(account.used[which], least)
        account.level_of = _OUTDATED

    def lease(self, submitter: str, need: Need) -> None:
        """Count a new lease."""
        account = self._accounts.get(submitter) or self._account(submitter)
        account.leases += 1
        account.level_of = _OUTDATED
        held = account.held
        held[0] += need.cores
        held[1] += need.memory_bytes
        held[2] += need.vram_bytes

    def start(self, submitter: str, need: Need) -> None:
        """A lease has got its holder: what it needs is in use from now on."""
        account = self._account(submitter)
        account.level_of = _OUTDATED
        _add(account.running, need, 1)
        _add(account.used, need, -self._growth * _MEAN_LIFE_S)

    def end(self, submitter: str, need: Need, *, started: bool) -> None:
        """A lease is over."""
        account = self._account(submitter)
        account.leases -= 1
        account.level_of = _OUTDATED
        _add(account.held, need, -1)
        if started:
            _add(account.running, need, -1)
            _add(account.used, need, self._growth * _MEAN_LIFE_S)

    def _account(self, submitter: str) -> _Account:
        account = self._accounts.get(submitter)
        if account is None:
            account = _Account(self._weights.get(submitter, 1.0))
            self._accounts[submitter] = account
        return account

    def _begin_again(self, worth: float) -> None:
        """Count in a new currency, before numbers grow too large; forget who has had nothing."""
        for account in self._accounts.values():
            account.used = [used * worth for used in account.used]
        self._growth = 1.0
        self._accounts = {
            submitter: account
            for submitter, account in self._accounts.items()
            if account.leases or self._level(account, HELD_S) > _FORGOTTEN
        }
        self._change()

    def _change(self) -> None:
        self.version += 1
        self._moment += 1


def _add(amounts: list[float], need: Need, times: float) -> None:
    amounts[0] += times * need.cores
    amounts[1] += times * need.memory_bytes
    amounts[2] += times * need.vram_bytes
