"""What tools say of devices: hailortcli, and the owner's own program of a phone farm."""

from fuzz.target import Target, taken
from lender.protocol.devices import KNOWN
from lender.sensors.devices.hailo import architecture
from lender.sensors.devices.phones import LABEL, PHONES_MAX, PhoneRules, PhonesError, read_phones

_IDENTIFIED = b"Board Name: Hailo-8\nDevice Architecture: HAILO8\nSerial Number: HLDD\n"
_PHONE = b'{"phone": "pixel-1", "battery": 0.9, "temperature_c": 30.5, "charging": true}\n'


def _hailo(data: bytes) -> None:
    label = architecture(data)
    assert label is None or label in KNOWN


def _phones(data: bytes) -> None:
    phones = taken(PhonesError, read_phones, data)
    assert LABEL not in KNOWN
    for phone in phones or ():
        assert phone.name.isascii()
        assert phone.name.isprintable()
        assert 0 <= phone.battery <= 1
        assert abs(phone.temperature_c) <= 150
        assert isinstance(PhoneRules().allow(phone), bool)
    assert len({phone.name for phone in phones or ()}) == len(phones or ()) <= PHONES_MAX


TARGETS = (
    Target(
        "device-hailo",
        _hailo,
        (_IDENTIFIED, _IDENTIFIED.replace(b"HAILO8", b"HAILO8L"), _IDENTIFIED * 2),
        words=(b"Device Architecture:", b"HAILO10H", b"\n", b"\r"),
    ),
    Target(
        "device-phones",
        _phones,
        (_PHONE, _PHONE + _PHONE.replace(b"-1", b"-2"), b""),
        reads=("lender.sensors.devices.phones._phone",),
        words=(b'"battery"', b'"phone"', b"1e999", b"NaN", b"false", b"[[[["),
    ),
)
