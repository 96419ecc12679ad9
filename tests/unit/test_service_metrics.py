"""The page of metrics, held against the reference parser, and who may ask for it."""

import math

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from broker.service.metrics import METRICS as OF_BROKER
from broker.service.settings import BrokerSettings
from lender.daemon.metrics import METRICS as OF_LENDERD
from lender.service.metrics import OTHER, Metric, Registry
from lender.service.metrics_http import HEAD_BYTES_MAX, PATH, READY_PATH, judge
from lender.service.settings import SettingsError, load

SAID = Metric("said", "counter", 'What was "said" \\ \n heard.', "word", ("yes", "no", OTHER))
HEAT = Metric("heat_celsius", "gauge", "Now.")
WAIT = Metric("wait_seconds", "histogram", "How long.", bounds=(0.1, 1.0))


def parsed(registry: Registry) -> dict[str, dict[str, float]]:
    """Values by name and by the value of the one label, as the reference parser has them."""
    return {
        one.name: {
            sample.name.removeprefix(one.name) + "".join(sample.labels.values()): sample.value
            for sample in one.samples
        }
        for one in text_string_to_metric_families(registry.render())
    }


def test_the_page_says_what_was_counted_and_every_series_from_the_start() -> None:
    registry = Registry((SAID, HEAT, WAIT))
    assert parsed(registry)["said"] == {"_totalyes": 0, "_totalno": 0, "_totalother": 0}
    registry.add(SAID, 2, "yes")
    registry.set(HEAT, -1.5)
    for seconds in (0.1, 0.5, 7.0, -3.0):
        registry.observe(WAIT, seconds)
    page = parsed(registry)
    assert page["said"]["_totalyes"] == 2
    assert page["heat_celsius"] == {"": -1.5}
    assert page["wait_seconds"] == {
        "_bucket0.1": 2,
        "_bucket1.0": 3,
        "_bucket+Inf": 4,
        "_count": 4,
        "_sum": pytest.approx(7.6),
    }


def test_no_value_of_a_label_makes_a_series_that_was_not_declared() -> None:
    registry = Registry((SAID, HEAT))
    for number in range(1000):
        registry.add(SAID, 1, f'x{number}"}} 1\nevil 1\n')
    assert parsed(registry)["said"] == {"_totalyes": 0, "_totalno": 0, "_totalother": 1000}
    with pytest.raises(KeyError):
        registry.set(SAID, 1, "maybe")
    with pytest.raises(KeyError):
        registry.add(HEAT, 1, "maybe")


def test_what_was_kept_is_added_and_what_is_damaged_is_not() -> None:
    registry, kept = Registry((SAID, WAIT)), Registry((SAID, WAIT))
    for one in (registry, kept):
        one.add(SAID, 2, "yes")
        one.observe(WAIT, 0.5)
    dumped = kept.dump()
    registry.absorb(dumped)
    assert registry.dump() == {
        "said": {"yes": 4, "no": 0, OTHER: 0},
        "wait_seconds": [0, 2, 0, 1.0],
    }
    before = registry.render()
    for damaged in (
        {"said": 7, "wait_seconds": 7},
        {"said": {"yes": "7", "no": -1, OTHER: math.nan, "new": 1}},
        {"wait_seconds": [1, 2]},
        {"wait_seconds": [1, 2, 3, math.inf]},
        {"other": {"yes": 1}},
    ):
        registry.absorb(damaged)
    assert registry.render() == before


def test_names_follow_the_conventions() -> None:
    names = [one.name for one in (*OF_BROKER, *OF_LENDERD)]
    assert len(set(names)) == len(names)
    for metric in (*OF_BROKER, *OF_LENDERD):
        assert not metric.name.endswith(("_total", "_ms", "_mib", "_count", "_sum"))
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert (metric.label == "") == (metric.values == ())
        assert list(metric.bounds) == sorted(metric.bounds)
        assert math.inf not in metric.bounds


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        ("GET /metrics HTTP/1.1", "127.0.0.1:9463", 200),
        ("HEAD /metrics?x=1 HTTP/1.0", "localhost", 200),
        ("GET /metrics HTTP/1.1", "[::1]:9463", 200),
        ("GET /metrics HTTP/1.1", "BROKER.lab:9463", 200),
        ("GET /metrics HTTP/1.1", "evil.example:9463", 421),
        ("GET /metrics HTTP/1.1", "127.0.0.1.evil.example", 421),
        ("GET /metrics HTTP/1.1", "127.0.0.1@evil.example", 421),
        ("GET /metrics HTTP/1.1", "", 421),
        ("GET / HTTP/1.1", "127.0.0.1", 404),
        ("GET http://evil.example/metrics HTTP/1.1", "127.0.0.1", 404),
        ("POST /metrics HTTP/1.1", "127.0.0.1", 405),
        ("OPTIONS /metrics HTTP/1.1", "127.0.0.1", 405),
        ("PRI * HTTP/2.0", "127.0.0.1", 400),
        ("\xff\x00", "127.0.0.1", 400),
    ],
)
def test_only_a_get_by_an_address_or_our_own_name_is_answered(
    request_line: str, host: str, status: int
) -> None:
    head = f"{request_line}\r\nHost: {host}\r\n\r\n".encode("latin-1")
    assert judge(head, "broker.lab") == status


def test_readiness_is_told_by_whom_there_is_one_to_tell() -> None:
    head = b"GET /ready HTTP/1.1\r\nHost: 10.42.0.7:9463\r\n\r\n"
    assert judge(head, "x") == 404
    assert judge(head, "x", (PATH, READY_PATH)) == 200
    assert judge(head.replace(b"10.42.0.7", b"evil.example"), "x", (PATH, READY_PATH)) == 421


def test_a_request_without_an_end_or_with_two_hosts_is_refused() -> None:
    assert judge(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n", "x") == 400
    assert judge(b"GET /metrics HTTP/1.1\r\n\r\n", "x") == 400
    assert judge(b"G" * HEAD_BYTES_MAX, "x") == 431
    two = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    assert judge(two, "x") == 400


@pytest.mark.parametrize(
    ("said", "meant"),
    [("9463", "127.0.0.1:9463"), ("[::1]:0", "::1:0"), ("0.0.0.0:80", "0.0.0.0:80")],
)
def test_an_address_is_read(said: str, meant: str) -> None:
    assert load(BrokerSettings, None, {"metrics": said}, {}).metrics == meant


@pytest.mark.parametrize("said", ["", "desk", ":9463", "desk:", "desk:65536", "desk:-1"])
def test_what_is_no_address_is_refused(said: str) -> None:
    with pytest.raises(SettingsError, match=r"metrics.*write it like 127\.0\.0\.1:9464"):
        load(BrokerSettings, None, {"metrics": said}, {})
