"""What `lender-broker approve` asks of an operator, and takes from none by silence."""

import argparse
import os
from pathlib import Path

import pytest
from enrolment_world import signer

from broker.core.enrolment.messages import Approve, KnownLender, OperatorAnswer, WaitingRequest
from broker.service import letting_in
from broker.service.letting_in import LettingInError
from broker.service.settings import BrokerSettings
from lender.protocol import subjects
from lender.protocol.codec import Closed

KEY = signer(1).public_key
CODE = "4G7K-X2MQ"


class Desk:
    """A broker where one waits, that was let in before, and to which the operator speaks."""

    def __init__(self, before: tuple[KnownLender, ...]) -> None:
        self.before = before
        self.approved: list[Approve] = []

    def __call__(self, _: BrokerSettings) -> "Desk":
        return self

    async def ask(self, subject: str, message: Closed) -> OperatorAnswer:
        if subject == subjects.ENROLMENT_REQUESTS:
            one = WaitingRequest(code=CODE, role="lender", key=KEY, name="desk", waits_s=1)
            return OperatorAnswer(requests=(one,))
        if isinstance(message, Approve):
            self.approved.append(message)
        return OperatorAnswer(lenders=self.before)


def approve(monkeypatch: pytest.MonkeyPatch, desk: Desk, *words: str) -> str:
    monkeypatch.setattr(letting_in, "OperatorsDesk", desk)
    parser = argparse.ArgumentParser()
    common = argparse.ArgumentParser(add_help=False)
    letting_in.configure(parser.add_subparsers(dest="command"), common, "")
    arguments = parser.parse_args(["approve", CODE, "--yes", *words])
    return letting_in.run(arguments, BrokerSettings(state=Path("nowhere")), os.urandom)


def known(submitters: tuple[str, ...] | None, pools: tuple[str, ...] | None) -> KnownLender:
    return KnownLender(key=KEY, name="desk", submitters=submitters, pools=pools, at=1)


@pytest.mark.parametrize("before", [known(("alice",), None), known(None, ("render",))])
def test_a_bound_lender_that_asks_again_gains_nothing_by_what_is_left_unsaid(
    monkeypatch: pytest.MonkeyPatch, before: KnownLender
) -> None:
    desk = Desk((before,))
    with pytest.raises(LettingInError, match="say for whom now"):
        approve(monkeypatch, desk)
    assert desk.approved == []
    assert "for everybody" in approve(monkeypatch, desk, "--submitters", "all")
    assert "for bob alone" in approve(monkeypatch, desk, "--submitters", "bob")
    assert [one.submitters for one in desk.approved] == [None, ("bob",)]


@pytest.mark.parametrize("before", [(), (known(None, None),)])
def test_of_any_other_it_need_not_be_said(
    monkeypatch: pytest.MonkeyPatch, before: tuple[KnownLender, ...]
) -> None:
    desk = Desk(before)
    assert "for everybody" in approve(monkeypatch, desk)
    assert len(desk.approved) == 1
