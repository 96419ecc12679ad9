"""Whom `lender enroll` lets vouch for a fleet's servers from then on."""

import time

from broker.deployment import certificates
from lender.link.vouching import believed

OLD, NEW = (certificates.make_authority(name, time.time()).certificate for name in ("old", "new"))


def test_who_could_verify_the_server_believes_it_of_a_later_authority() -> None:
    both = OLD + NEW
    assert believed(OLD.encode(), both) == [both.encode(), OLD.encode()]
    assert believed(OLD.encode(), OLD) == [OLD.encode()]


def test_who_could_not_believes_nobody() -> None:
    assert believed(None, OLD + NEW) == [None]


def test_what_is_no_certificate_changes_nothing() -> None:
    for told in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n", "bücher", "\x00"):
        assert believed(OLD.encode(), told) == [OLD.encode()]
