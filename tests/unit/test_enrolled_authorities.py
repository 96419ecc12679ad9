"""Whom `lender enroll` lets vouch for a fleet's servers from then on."""

import time

from broker.deployment import certificates
from lender.link.vouching import believed, succeeds

NOW = time.time()
OLD, NEW = (
    certificates.make_authority(name, NOW + after_s).certificate
    for name, after_s in (("old", 0.0), ("new", 60.0))
)


def test_who_could_verify_the_server_believes_it_of_a_later_authority() -> None:
    both = OLD + NEW
    assert believed(OLD.encode(), both) == [both.encode(), OLD.encode()]
    assert believed(OLD.encode(), OLD) == [OLD.encode()]


def test_who_could_not_believes_nobody() -> None:
    assert believed(None, OLD + NEW) == [None]


def test_what_is_no_certificate_changes_nothing() -> None:
    for told in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n", "bücher", "\x00"):
        assert believed(OLD.encode(), told) == [OLD.encode()]


def test_a_successor_is_taken_up_and_what_was_before_it_dropped_and_never_taken_back() -> None:
    assert succeeds(OLD + NEW, OLD)
    assert succeeds(NEW, OLD + NEW)
    assert succeeds(NEW, OLD), "who missed the time of both, over a line that still stands"
    for told, known in ((OLD, OLD + NEW), (OLD, NEW), (OLD + NEW, NEW), (NEW + OLD, OLD + NEW)):
        assert not succeeds(told, known), "a broker whose copy is older"


def test_nothing_that_is_no_authority_succeeds_one() -> None:
    server = certificates.make("x", ["nats.lab"], NOW + 120).server
    for told in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n", "bücher", "\x00", server):
        assert not succeeds(told, OLD)
        assert not succeeds(told, "")
