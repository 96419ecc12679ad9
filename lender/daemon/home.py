"""The owner's house, by MQTT: its commands are carried out, its signals kept, our state is told."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final

from lender.core.conditions import OutsideWatch
from lender.core.consent import Intent
from lender.core.home_commands import (
    CommandCame,
    HomeCommands,
    HomeEffect,
    KeepIntent,
    Refuse,
    RevokeAll,
    Weigh,
    WordWeighed,
)
from lender.core.signals import OutsideReading
from lender.core.status import LenderStatus
from lender.daemon.clock import Clock
from lender.daemon.home_assistant import Topics, discovery, state_of
from lender.daemon.home_line import Access, HomeLine
from lender.daemon.home_settings import MqttSettings
from lender.daemon.owner import OwnerVerbs
from lender.state.consent_files import read_consent
from lender.state.folder import StateFolder
from lender.state.home_key import read_home_key
from lender.state.withdrawal import EVERYTHING, Withdrawal, forget, save, withdraw

log = logging.getLogger(__name__)

WARN_S: Final = 60.0
"""Between two lines in the log of what strangers say."""


class Home:
    """What stands between the MQTT server and the owner's verbs."""

    def __init__(
        self,
        settings: MqttSettings,
        machine: str,
        state: StateFolder,
        clock: Clock,
        status: Callable[[], LenderStatus],
    ) -> None:
        """Prepare.

        Args:
            settings: of the owner.
            machine: what people call it.
            state: where the key lies, and consent.
            clock: the daemon's.
            status: the core's view.
        """
        self._settings = settings
        self._state = state
        self._clock = clock
        self._status = status
        self._node = settings.node_of(machine)
        self._topics = Topics.of(self._node, settings.discovery_prefix)
        self._commands = HomeCommands(self._node, time.time())
        self._watch = OutsideWatch(one.source() for one in settings.signals)
        self._signals = {one.topic: one.name for one in settings.signals}
        about = discovery(self._node, machine, version("lender"), self._topics)
        self._about = json.dumps(about).encode()
        access = Access(
            *(settings.place, settings.credentials, settings.ca),
            # Whoever has a password there can end a connection by taking its name as a client.
            identifier=f"lender-{self._node}-{secrets.token_hex(8)}",
        )
        heard = [self._topics.commands, *self._signals]
        self._line = HomeLine(access, self._topics.available, heard, self.hear, self._told)
        self._owner: OwnerVerbs | None = None
        self._refused = {"theirs": "", "unknown": ""}
        self._warned_at = -WARN_S
        self._settling: set[asyncio.Task[None]] = set()

    async def run(self, owner: OwnerVerbs) -> None:
        """Serve until cancelled; commands are carried out as `owner` carries out verbs."""
        self._owner = owner
        await self._line.run()

    def outside(self) -> tuple[OutsideReading, ...]:
        """Return what is known of the owner's conditions now."""
        return self._watch.read(self._clock())

    def facts(self) -> Mapping[str, Any]:
        """Return what `lender status` and `lender doctor` tell of it; nothing secret."""
        return {
            "node": self._node,
            "server": str(self._settings.place),
            "connected": self._line.connected,
            "fault": self._line.fault,
            "key": read_home_key(self._state) is not None,
            "refused": self._refused["theirs"],
            "refused_strange": self._refused["unknown"],
        }

    def hear(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - MQTT's flag
        """Take up a message of the server's. Raises nothing: no message may end lenderd."""
        name = self._signals.get(topic)
        try:
            if name is not None:
                self._watch.heard(self._clock(), name, payload, retained=retained)
            if topic == self._topics.commands:
                came = CommandCame(payload, retained, read_home_key(self._state))
                self._carry_out(self._commands.handle(time.time(), came))
        except Exception:
            log.exception("a message by MQTT could not be taken up")

    def _carry_out(self, effects: list[HomeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Weigh):
                self._carry_out(self._commands.handle(time.time(), self._weighed(effect.word)))
            elif isinstance(effect, Refuse):
                self._refuse(effect)
            else:
                log.info("the owner's word by MQTT: %s", _word(effect))
                self._obey(effect)
                self._refused["theirs"] = ""
                self._line.nudge()

    def _refuse(self, effect: Refuse) -> None:
        now = time.monotonic()
        # Anybody on that server can have it said again and again.
        if effect.kind == "theirs" or now - self._warned_at >= WARN_S:
            log.warning("a command that came by MQTT is not followed: %s", effect.reason)
            self._warned_at = now
        self._refused[effect.kind] = effect.reason
        if effect.kind == "theirs":
            self._line.nudge()  # the switch shows again what is so

    def _weighed(self, word: str) -> WordWeighed:
        assert self._owner is not None, "it runs"
        held = read_consent(self._state).valid(time.time())
        return WordWeighed(word, self._owner.word(), consented=bool(held))

    def _obey(self, effect: KeepIntent | RevokeAll) -> None:
        assert self._owner is not None, "it runs"
        try:
            if isinstance(effect, RevokeAll):
                self._revoke(self._owner)
            elif effect.intent.paused:
                self._owner.obey(effect.intent)
            else:
                self._owner.resume(effect.intent)
        except OSError as error:
            log.error("the word could not be saved: %s", error)  # noqa: TRY400 - the disk's fault

    def _revoke(self, owner: OwnerVerbs) -> None:
        """Withdraw everything; when this returns, nothing runs any more."""
        now = time.time()
        withdrawn = withdraw(self._state, EVERYTHING, now)
        owner.load()
        if read_consent(self._state).valid(now):
            owner.obey(Intent(paused=True, paused_at=now))  # a disk that takes no word
        for fault in _faults(withdrawn):
            log.error("the revocation is not complete: %s", fault)

        async def rest() -> None:
            saved = await asyncio.to_thread(save, self._state, withdrawn)
            _, kept = await asyncio.to_thread(forget, self._state, EVERYTHING, (), now)
            new = [fault for fault in _faults(saved) if fault not in _faults(withdrawn)]
            for fault in (*new, *(f"could not be deleted: {one}" for one in kept)):
                log.error("the revocation is not complete, type `lender revoke --all`: %s", fault)

        task = asyncio.create_task(rest())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _told(self) -> Mapping[str, bytes]:
        state = state_of(self._status(), time.time())
        return {self._topics.discovery: self._about, self._topics.state: json.dumps(state).encode()}


def _word(effect: KeepIntent | RevokeAll) -> str:
    if isinstance(effect, RevokeAll):
        return "revoke everything"
    return "pause" if effect.intent.paused else "resume"


def _faults(withdrawal: Withdrawal) -> list[str]:
    faults = [f"could not be withdrawn: {one}" for one in withdrawal.not_withdrawn]
    if withdrawal.not_saved:
        aside = f"the files of {len(withdrawal.set_aside)} grants were set aside instead"
        faults.append(f"no tombstone could be saved ({withdrawal.not_saved}); {aside}")
    return faults
