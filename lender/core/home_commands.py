"""Commands of the owner's home automation: whether one is theirs, and what it may do.

They come over an MQTT server that many write to. So each is one line, `<word> <said at> <digest>`,
and the digest is by a key that only the owner's home automation and this machine have.

The digest is HMAC's nest with two independent keys (Bellare 2006, "New Proofs for NMAC and HMAC"),
as templates of Home Assistant can make it of hashes of texts alone: each key is one block of
SHA-256, 64 bytes, which are hexadecimal digits. docs/decisions/0035-home-automation.md.
"""

import hmac
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from lender.core.consent import Intent

COMMAND_BYTES_MAX: Final = 128
FRESH_S: Final = 30.0
"""A command counts for so long, and from so long before the machine's own clock."""

PAUSE_MAX_S: Final = 7 * 86_400
DRAIN_S: Final = 7 * 86_400.0
"""What may finish has this long, as with `lender pause --finish`."""

RESUMES_MAX: Final = 6
RESUMES_WITHIN_S: Final = 60.0

_KEY: Final = re.compile(r"([0-9a-f]{64})([0-9a-f]{64})")
_LINE: Final = re.compile(
    rb"(pause|pause-[1-9][0-9]{0,3}[mh]|drain|resume|revoke) ([0-9]{10}(?:\.[0-9]{1,6})?) "
    rb"([0-9a-f]{64})"
)
_UNIT_S: Final = {"m": 60, "h": 3600}


class CommandFault(ValueError):  # noqa: N818 - a fault of what came, not of ours
    """Not a command of the owner's; the text says why, and repeats nothing of it."""


class CommandKey(NamedTuple):
    """What commands are signed by: two keys, of 64 hexadecimal digits each."""

    inner: str
    outer: str

    @classmethod
    def parse(cls, text: str) -> "CommandKey":
        """Read both, one after the other.

        Raises:
            ValueError: it is no such key.
        """
        found = _KEY.fullmatch(text)
        if found is None:
            raise ValueError("no key of 128 hexadecimal digits")
        return cls(found[1], found[2])

    def digest(self, node: str, word: str, at: str) -> str:
        """Return the digest of a word to a machine, said at that many seconds since the epoch."""
        inner = sha256(f"{self.inner}{said(node, word, at)}".encode()).hexdigest()
        return sha256(f"{self.outer}{inner}".encode()).hexdigest()


def said(node: str, word: str, at: str) -> str:
    """Return the text that is signed. None of the three can contain a space."""
    return f"lender {node} {word} {at}"


class Command(NamedTuple):
    """What was said, and when; `at` as it was written."""

    word: str
    at: str
    digest: str


def decode_command(payload: bytes) -> Command:
    """Take a command apart.

    Raises:
        CommandFault: it is none.
    """
    found = _LINE.fullmatch(payload) if len(payload) <= COMMAND_BYTES_MAX else None
    if found is None:
        raise CommandFault("it is no command")
    return Command(*(part.decode() for part in found.groups()))


@dataclass(frozen=True, slots=True)
class CommandCame:
    """Something came where commands come.

    Attributes:
        payload: of the message.
        retained: the server had kept it; it may be of any age.
        key: as it lies on the disk now; None: there is none that can be used.
    """

    payload: bytes
    retained: bool
    key: CommandKey | None


@dataclass(frozen=True, slots=True)
class WordWeighed:
    """What `Weigh` asked for.

    Attributes:
        word: as it was said.
        intent: the owner's last word that counts now.
        consented: some grant holds.
    """

    word: str
    intent: Intent
    consented: bool


@dataclass(frozen=True, slots=True)
class Weigh:
    """It is the owner's command: look up what it depends on, and tell by `WordWeighed`."""

    word: str


@dataclass(frozen=True, slots=True)
class KeepIntent:
    """Store this word, and carry it out."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class RevokeAll:
    """Withdraw every grant."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do nothing, and tell why where the owner sees it.

    `kind`: the key was the owner's (`theirs`), or nobody knows whose it was (`unknown`).
    """

    reason: str
    kind: Literal["theirs", "unknown"]


HomeEvent = CommandCame | WordWeighed
HomeEffect = Weigh | KeepIntent | RevokeAll | Refuse


class HomeCommands:
    """Which commands were used; a command counts once, and none before a later one."""

    def __init__(self, node: str, started_at: float) -> None:
        """Begin.

        Args:
            node: what this machine is called in its topics.
            started_at: commands from before it do not count; seconds since the epoch.
        """
        self._node = node
        self._last_at = started_at
        self._resumed_at: tuple[float, ...] = ()

    def handle(self, now: float, event: HomeEvent) -> list[HomeEffect]:
        """Tell what follows; `now` is the wall clock's, in seconds since the epoch."""
        if isinstance(event, WordWeighed):
            return [self._follow(now, event)]
        try:
            return [Weigh(self._proven(now, event).word)]
        except CommandFault as fault:
            return [Refuse(str(fault), "unknown")]

    def _proven(self, now: float, event: CommandCame) -> Command:
        """Return the command if it is the owner's, new and in order.

        Raises:
            CommandFault: it is not.
        """
        if event.retained:
            raise CommandFault("the server had kept it, so it may be old")
        if event.key is None:
            raise CommandFault("there is no key on this machine: lender home")
        command = decode_command(event.payload)
        digest = event.key.digest(self._node, command.word, command.at)
        if not hmac.compare_digest(digest, command.digest):
            raise CommandFault("it is not signed by this machine's key")
        at = float(command.at)
        if abs(now - at) > FRESH_S:
            raise CommandFault(
                f"it was said {abs(now - at):.0f} s {'ago' if at < now else 'from now'}: clocks "
                "must agree"
            )
        if at <= self._last_at:
            raise CommandFault("it came before, or a later one did, or lenderd began after it")
        self._last_at = at
        return command

    def _follow(self, now: float, event: WordWeighed) -> HomeEffect:
        word = event.word
        if word == "revoke":
            return RevokeAll()
        if word == "resume":
            return self._resume(now, event)
        asked = Intent(
            paused=True,
            paused_at=now,
            until=now + _span_s(word) if word.startswith("pause-") else None,
            finish_by=now + DRAIN_S if word == "drain" else None,
            by_mqtt=True,
        )
        return KeepIntent(tightened(event.intent, asked, now))

    def _resume(self, now: float, event: WordWeighed) -> HomeEffect:
        intent = event.intent
        if not intent.holds(now):
            return Refuse("nothing is paused", "theirs")
        if not intent.by_mqtt:
            return Refuse("it was paused at the machine: lender resume, there", "theirs")
        if not event.consented:
            return Refuse("nothing is granted: lender grant, at the machine", "theirs")
        recent = tuple(at for at in self._resumed_at if 0 <= now - at < RESUMES_WITHIN_S)
        if len(recent) >= RESUMES_MAX:
            return Refuse("it was resumed too often within a minute; it stays paused", "theirs")
        self._resumed_at = (*recent, now)
        # Not its own time: a pause that is said at the machine meanwhile is later than this word.
        return KeepIntent(Intent(paused=False, paused_at=intent.paused_at))


def tightened(stored: Intent, asked: Intent, now: float) -> Intent:
    """Return what holds when a pause comes by MQTT.

    Over one of MQTT's own, the last word. Over one from the machine, no less than either of both,
    and the machine's to lift.
    """
    if not stored.holds(now):
        return asked
    if stored.by_mqtt:
        ends = (stored.until, stored.finish_by, asked.until, asked.finish_by)
        return asked if any(ends) else stored  # the same again is not written again
    until = finish_by = None
    if stored.until is not None and asked.until is not None:
        until = max(stored.until, asked.until)
    if stored.finish_by is not None and asked.finish_by is not None:
        finish_by = min(stored.finish_by, asked.finish_by)
    return replace(stored, until=until, finish_by=finish_by)


def _span_s(word: str) -> float:
    """Of `pause-90m` or `pause-2h`, a week at most."""
    amount, unit = word.removeprefix("pause-")[:-1], word[-1]
    return float(min(int(amount) * _UNIT_S[unit], PAUSE_MAX_S))
