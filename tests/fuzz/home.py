"""The house's MQTT server: everything in the house may write there."""

import math
from functools import partial

from fuzz.target import Target, taken
from lender.core.conditions import OutsideWatch, SignalFault, Source, decode_signal
from lender.core.home_commands import CommandCame, CommandKey, HomeCommands, Refuse, Weigh

_NOW = 1_763_000_000.0
_KEY = CommandKey("1f" * 32, "a0" * 32)
_SOURCES = (
    Source("price", "now.0.price", numeric=True, expires_s=60),
    Source("presence", "", numeric=False, expires_s=60),
)


def _signed(word: str) -> bytes:
    at = f"{_NOW:.3f}"
    return f"{word} {at} {_KEY.digest('desk', word, at)}".encode()


_SEEDS = tuple(_signed(word) for word in ("pause", "pause-90m", "drain", "resume", "revoke"))


def _command(data: bytes) -> None:
    commands = HomeCommands("desk", _NOW - 100)
    (effect,) = commands.handle(_NOW, CommandCame(data, retained=False, key=_KEY))
    assert isinstance(effect, Refuse | Weigh)
    assert isinstance(effect, Weigh) == (data in _SEEDS)
    kept = commands.handle(_NOW, CommandCame(data, retained=True, key=_KEY))
    assert isinstance(kept[0], Refuse)


def _signal(data: bytes) -> None:
    for source in _SOURCES:
        read = partial(decode_signal, numeric=source.numeric)
        value = taken(SignalFault, read, data, source.key)
        if source.numeric:
            assert value is None or (isinstance(value, float) and math.isfinite(value))
        else:
            assert value is None or (isinstance(value, str) and value.isprintable())
        watch = OutsideWatch(_SOURCES)
        watch.heard(_NOW, source.name, data, retained=False)
        reading = next(one for one in watch.read(_NOW + 1) if one.name == source.name)
        assert reading.value == value
        assert (value is None) == bool(reading.fault)


TARGETS = (
    Target("home-command", _command, _SEEDS, words=(b"pause-", b"h ", b"resume ", b"1763000000.")),
    Target(
        "home-signal",
        _signal,
        (b'{"now": [{"price": 0.31}]}', b"not_home", b'{"now": [{"price": "-1e3"}]}'),
        reads=("lender.core.conditions._picked",),
        words=(b'"now"', b'"price"', b"NaN", b"1e999", b"[[[["),
    ),
)
