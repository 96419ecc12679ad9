"""The owner's verbs, each as the command carries it out: by its own hands first, then lenderd.

What a verb has promised when it returns stands in `Promises`, for the checkers alone.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from sim.disk import DiskFullError
from sim.lender_shell import LenderShell
from sim.machine import Sandbox
from sim.world import Actor, World

from lender.core.consent import Grant, Intent

STEP_S = (0.0005, 0.03)
"""Between two steps of a command."""

BUSY_S = 0.2


class Promises:
    """What an owner may rely on, since a verb of theirs has returned."""

    def __init__(self) -> None:
        self.paused_until = -inf
        """By the wall clock: nothing runs before."""
        self.closed_until = -inf
        """By the wall clock: nothing new is taken before."""
        self.revoked: dict[str, None] = {}
        """Under these grants nothing runs any more."""

    def shorten(self, until: float) -> None:
        """Rely on no more than this of a pause."""
        self.paused_until = min(self.paused_until, until)
        self.closed_until = min(self.closed_until, until)


class Owner:
    """The owner of one machine; one verb at a time."""

    def __init__(
        self,
        world: World,
        shell: LenderShell,
        new_grant: Callable[[str, float, int, str], Grant],
        returned: Callable[["Owner", str], None],
    ) -> None:
        self.world = world
        self.shell = shell
        self.machine: Actor = shell.machine
        self.promises = Promises()
        self.verbs = 0
        self._new_grant = new_grant
        self._returned = returned
        self._disk = shell.machine.disk
        self._rng = world.rng(f"owner/{shell.machine.name}")
        self._at_work = False

    @property
    def _daemon_hears(self) -> bool:
        return self.shell.alive and not self.shell.suspended

    def say(self, verb: str, *args: object) -> None:
        """Give a command, as soon as the one before has returned."""
        if self._at_work:
            self.machine.after(BUSY_S, self.say, verb, *args)
            return
        self._at_work = True
        self.verbs += 1
        self.world.stats[f"verb {verb}"] += 1
        self.world.note(self.shell.machine.name, f"owner: {verb}")
        steps = getattr(self, f"_{verb}")(*args)
        self._step(verb, steps)

    def _step(self, verb: str, steps: list[Callable[[], None]]) -> None:
        if steps:
            steps[0]()
            self.machine.after(self._rng.uniform(*STEP_S), self._step, verb, steps[1:])
            return
        self._at_work = False
        self._returned(self, verb)

    # Each returns the steps of its command; between two of them anything may happen.

    def _pause(self, for_s: float | None = None) -> list[Callable[[], None]]:
        wall = self.shell.machine.wall()
        word = Intent(paused=True, paused_at=wall, until=None if for_s is None else wall + for_s)

        def save() -> None:
            try:
                self._disk.keep_intent(word)
            except DiskFullError:
                self.world.stats["pauses not saved"] += 1

        def again() -> None:
            self.shell.machine.freeze_all()
            until = inf if word.until is None else word.until
            if self._disk.intent != word:
                # Not saved: what lenderd obeys for now may end before an earlier word's time.
                self.promises.shorten(until)
                return
            self.promises.shorten(until)
            self.promises.paused_until = until
            if self._daemon_hears:
                self.promises.closed_until = until

        return [self.shell.machine.freeze_all, save, lambda: self._tell_pause(word), again]

    def _finish(self, within_s: float) -> list[Callable[[], None]]:
        """`lender pause --finish`: nothing new, and what runs may go on for a while."""
        wall = self.shell.machine.wall()
        word = Intent(paused=True, paused_at=wall, finish_by=wall + within_s)

        def save() -> None:
            try:
                self._disk.keep_intent(word)
            except DiskFullError:
                return
            self.promises.shorten(-inf)

        def tell() -> None:
            self._tell_pause(word)
            if self._daemon_hears and self._disk.intent == word:
                self.promises.closed_until = inf

        return [save, tell]

    def _resume(self) -> list[Callable[[], None]]:
        def save() -> None:
            try:
                self._disk.keep_intent(Intent(False, self.shell.machine.wall()))
            except DiskFullError:
                return
            self.promises.shorten(-inf)

        return [save, self._reload]

    def _grant(self, submitter: int, workload: str, for_s: float = 1e6) -> list[Callable[[], None]]:
        def save() -> None:
            machine = self.shell.machine
            grant = self._new_grant(machine.name, machine.wall() + for_s, submitter, workload)
            try:
                self._disk.keep_grant(grant)
            except DiskFullError:
                return

        return [save, self._reload]

    def _revoke(self, pick: int) -> list[Callable[[], None]]:
        """Withdraw a grant, rather one that is used; or all of them."""
        machine = self.shell.machine
        held = [id_ for id_ in self._disk.grants if id_ not in self._disk.tombstones]
        at_work = [box.grant for box in machine.sandboxes.values() if box.grant in held]
        if not held:
            return []
        some = at_work or held
        ids = held if pick < 0 else [some[pick % len(some)]]

        def doomed() -> list[Sandbox]:
            return [box for box in machine.sandboxes.values() if box.grant in ids]

        def freeze() -> None:
            for box in doomed():
                machine.freeze(box.lease.lease)

        def kill() -> None:
            for box in doomed():
                machine.kill(box, "killed")

        def tell() -> None:
            if self.shell.alive and self.shell.suspended and not machine.asleep:
                self.shell.crash()  # it does not answer
            else:
                self._reload()

        def again() -> None:
            kill()
            self.promises.revoked.update(dict.fromkeys(ids))

        return [freeze, lambda: self._disk.withdraw(ids), kill, tell, again]

    def _restart(self, within_s: float) -> list[Callable[[], None]]:
        """`systemctl restart lenderd`."""

        def stop() -> None:
            if self._daemon_hears and not self.shell.draining:
                self.shell.drain(within_s)

        return [stop]

    def _tell_pause(self, word: Intent) -> None:
        if self._daemon_hears:
            try:
                self.shell.pause(word)
            except DiskFullError:
                self.world.stats["pauses not saved"] += 1

    def _reload(self) -> None:
        if self._daemon_hears:
            self.shell.load()


class VerbPlan(NamedTuple):
    """A verb that an owner will say."""

    at: float
    lender: int
    verb: str
    args: tuple[object, ...] = ()
