"""What is said of lenders that send more than is taken up."""

import logging

import pytest

from broker.service import left_out
from broker.service.left_out import LeftOut


def test_it_is_said_at_once_and_then_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(left_out.time, "monotonic", lambda: now)
    told = LeftOut()
    with caplog.at_level(logging.WARNING):
        for _ in range(500):
            told.note("UFLOOD")
        told.note("UOTHER")
        assert len(caplog.messages) == 1
        assert "lender UFLOOD" in caplog.messages[0]
        now += left_out.TELL_S
        told.note("UFLOOD")
    assert [line for line in caplog.messages if "500 of its messages" in line]
    assert [line for line in caplog.messages if "lender UOTHER" in line and "1 of" in line]
    assert len(caplog.messages) == 3
