"""Whatever comes by MQTT, in whatever order: what the machine says stands still stays so."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lender.core.consent import Intent
from lender.core.home_commands import (
    CommandCame,
    CommandKey,
    HomeCommands,
    KeepIntent,
    Refuse,
    Weigh,
    WordWeighed,
)

START = 1_763_000_000.0
KEY = CommandKey("1f" * 32, "a0" * 32)
BY_MQTT = ("pause", "pause-1m", "pause-9h", "drain", "resume")
AT_THE_MACHINE = ("pause", "pause for a minute", "drain", "another's pause", "resume")

deeds = st.lists(
    st.one_of(
        st.tuples(st.just("mqtt"), st.sampled_from(BY_MQTT)),
        st.tuples(st.just("machine"), st.sampled_from(AT_THE_MACHINE)),
        st.tuples(st.just("wait"), st.integers(1, 90)),
    ),
    max_size=30,
)


def at_the_machine(word: str, now: float) -> Intent:
    intent = Intent(paused=word != "resume", paused_at=now)
    if word == "pause for a minute":
        return replace(intent, until=now + 60)
    if word == "drain":
        return replace(intent, finish_by=now + 60)
    return replace(intent, said_by=1001) if word == "another's pause" else intent


@given(deeds)
def test_mqtt_only_ever_adds_to_the_machines_own_word(
    said: list[tuple[str, str | int]],
) -> None:
    commands, now, stored = HomeCommands("desk", START), START, Intent()
    kept_until, still_until = 0.0, 0.0
    for who, what in said:
        if isinstance(what, int):
            now += what
        elif who == "machine":
            stored = at_the_machine(what, now)
            ends = math.inf if stored.until is None else stored.until
            kept_until = ends if stored.paused else 0.0
            still_until = kept_until if stored.stops(now) else 0.0
        else:
            (effect,) = commands.handle(now, WordWeighed(what, stored, consented=True))
            if isinstance(effect, KeepIntent):
                assert effect.intent.holds(now) == (what != "resume")
                stored = effect.intent
            else:
                assert isinstance(effect, Refuse)
                assert what == "resume"
        if now < kept_until:
            assert stored.holds(now)
            assert not stored.by_mqtt
        if now < still_until:
            assert stored.stops(now)


@given(
    st.sampled_from([*BY_MQTT, "revoke"]),
    st.integers(0, 127),
    st.integers(0, 255),
    st.floats(-40, 40),
)
def test_no_byte_of_a_command_can_be_another(
    word: str, place: int, byte: int, ago_s: float
) -> None:
    at = f"{START - ago_s:.3f}"
    true = f"{word} {at} {KEY.digest('desk', word, at)}".encode()
    changed = bytearray(true)
    changed[place % len(true)] = byte
    commands = HomeCommands("desk", START - 100)
    (effect,) = commands.handle(START, CommandCame(bytes(changed), retained=False, key=KEY))
    follows = bytes(changed) == true and abs(START - float(at)) <= 30
    assert isinstance(effect, Weigh) == follows
