"""Machines and submitters are let in by real commands, a real broker and a real server."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import live_files
import pytest
from eavesdropper import Eavesdropper
from enrolling_fleet import EnrollingFleet
from terminal import Terminal

from deploy.local.fleet import command, wait_until
from lender.link.membership import Membership, submitters_folder
from lender.protocol.enrolment import fingerprint_of

UNKNOWN = "0000-0000"


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[EnrollingFleet]:
    with EnrollingFleet(open_folder) as running:
        yield running


def command_lines() -> str:
    """What every process on this machine was started with."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def terminal(argv: list[str]) -> Terminal:
    return Terminal(argv, {**os.environ, "TERM": "xterm-256color"}, columns=120)


def test_a_machine_and_a_submitter_are_paired_by_code_and_work(fleet: EnrollingFleet) -> None:
    with Eavesdropper(fleet.folder):
        desk = fleet.add("desk")
        with fleet.enroll_lender("desk") as enrolling:
            shown = enrolling.document()
            key = shown["key"]
            assert shown["fingerprint"] == fingerprint_of(key)
            (waiting,) = fleet.requests()
            assert (waiting["code"], waiting["key"]) == (shown["code"], key)
            assert (waiting["role"], waiting["name"]) == ("lender", "desk")
            assert waiting["host"] == "127.0.0.1"
            table = fleet.broker_verb("requests").stdout
            assert shown["code"] in table
            assert fingerprint_of(key) in table
            for code, says in ((UNKNOWN, "nobody waits"), (shown["code"], "add --yes")):
                said = fleet.broker_verb("approve", code)
                assert said.returncode == 1
                assert says in said.stderr
            assert enrolling.process.poll() is None
            assert not desk.lending()
            fleet.approve(shown["code"].lower().replace("-", ""))
            assert enrolling.document()["state"] == "enrolled"
            assert enrolling.ended() == 0, enrolling.complaint()
        assert fleet.requests() == []
        found = Membership.read(desk.state / "fleet")
        assert found is not None
        assert stat.S_IMODE(found.credentials.stat().st_mode) == 0o600
        assert stat.S_IMODE(found.credentials.parent.stat().st_mode) == 0o700
        assert sorted(path.name for path in found.credentials.parent.iterdir()) == [
            "fleet.creds",
            "url",
        ]

        fleet.grant(desk, "command")
        fleet.wait_lending(desk)  # one that runs has joined by itself
        with fleet.enroll("--role", "submitter", "--key", str(fleet.key), "--name", "demo") as own:
            fleet.approve(own.document()["code"])
            assert own.ended() == 0, own.complaint()
        assert fleet.submitter in fleet.broker_verb("submitters").stdout
        work = [command("lender"), "submit", "--key", str(fleet.key), "--", "sh", "-c", "echo done"]
        said = subprocess.run(work, capture_output=True, text=True, timeout=60, check=False)
        assert said.returncode == 0, said.stderr
        assert "done" in said.stdout

        desk.stop()
        desk.start()
        fleet.wait_lending(desk)
        text = "".join(
            content.decode(errors="replace")
            for path, content in live_files.contents(fleet.folder)
            if path.suffix == ".log"
        )
        assert "Traceback" not in text


def test_who_is_in_already_is_told_and_nothing_changes(fleet: EnrollingFleet) -> None:
    fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        fleet.approve(enrolling.document()["code"])
        assert enrolling.document()["new"] is True
    with fleet.enroll_lender("desk") as again:
        assert again.document()["new"] is False
        assert again.ended() == 0


def test_who_is_in_already_and_names_an_authority_is_let_in_by_nobody_else(
    fleet: EnrollingFleet,
) -> None:
    """It was let in without one; the server here has no TLS, so that nothing is said to it."""
    desk = fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        fleet.approve(enrolling.document()["code"])
        assert enrolling.document()["new"] is True
    authority = fleet.folder / "ca.pem"
    authority.write_bytes((fleet.deployment.folder / "ca.pem").read_bytes())
    authority.chmod(0o644)
    with fleet.enroll_lender("desk", "--ca", str(authority)) as again:
        assert again.ended() != 0
        assert "offers no TLS" in again.complaint()
    known = Membership.read(desk.state / "fleet")
    assert known is not None
    assert known.ca is None


def test_what_was_approved_is_fetched_after_the_machine_gave_up_and_the_broker_was_killed(
    fleet: EnrollingFleet,
) -> None:
    fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        code = enrolling.document()["code"]
        os.kill(enrolling.process.pid, signal.SIGSTOP)  # it hears no answer
        fleet.approve(code)
    fleet.broker.kill()
    fleet.start_broker()
    with fleet.enroll_lender("desk") as again:
        assert again.document()["state"] == "enrolled"
        assert again.ended() == 0


def test_a_submitter_may_submit_though_the_broker_was_killed_before_it_had_written_so(
    fleet: EnrollingFleet,
) -> None:
    """And is forbidden for good when the operator says so."""
    file, aside = fleet.folder / "broker" / "submitters.toml", fleet.folder / "aside"
    with fleet.enroll("--role", "submitter", "--key", str(fleet.key), "--name", "demo") as own:
        code = own.document()["code"]
        file.rename(aside)
        file.mkdir()  # nobody writes it now
        fleet.approve(code)
        assert own.ended() == 0, own.complaint()
    fleet.broker.kill()
    file.rmdir()
    aside.rename(file)
    assert fleet.submitter not in fleet.broker_verb("submitters").stdout
    fleet.start_broker()
    wait_until(lambda: fleet.submitter in fleet.broker_verb("submitters").stdout, "allowing it")
    assert fleet.broker_verb("forbid", "demo").returncode == 0
    fleet.broker.kill()
    fleet.start_broker()
    with fleet.enroll("--role", "submitter", "--key", str(fleet.key)) as own:
        assert own.ended() == 0, "the broker has read what is kept"
    assert fleet.submitter not in fleet.broker_verb("submitters").stdout


def test_a_join_token_lets_one_in_and_no_second_one(fleet: EnrollingFleet) -> None:
    for name in ("desk", "attic"):
        fleet.add(name)
    token = fleet.token("--role", "lender", "--expires", "1h")
    with fleet.enroll_lender("desk", env={"LENDER_JOIN_TOKEN": token}) as enrolling:
        assert enrolling.document()["state"] == "enrolled"
        assert token not in command_lines()
        assert enrolling.ended() == 0
    for _ in range(2):
        with fleet.enroll_lender("attic", "--token", "-", stdin=f"{token}\n") as second:
            assert second.ended() == 4
            assert "join token is not good" in second.complaint()
        fleet.broker.kill()
        fleet.start_broker()
    other = fleet.token("--role", "submitter")
    with fleet.enroll_lender("attic", "--token", other) as third:
        assert third.ended() == 4
    short = fleet.token("--expires", "1s")
    time.sleep(1.2)
    with fleet.enroll_lender("attic", "--token", short) as late:
        assert late.ended() == 4
    with fleet.enroll(
        "--role", "submitter", "--key", str(fleet.key), "--name", "demo", "--token", other
    ) as own:
        assert own.ended() == 0, own.complaint()
    assert fleet.submitter in fleet.broker_verb("submitters").stdout
    kept = b"".join(content for _, content in live_files.contents(fleet.folder))
    assert token.encode() not in kept
    assert other.encode() not in kept


def test_a_revoked_key_comes_back_by_another_approval_alone(fleet: EnrollingFleet) -> None:
    desk = fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        shown = enrolling.document()
        fleet.approve(shown["code"])
        assert enrolling.ended() == 0
    desk.stop()
    said = fleet.broker_verb("revoke", shown["key"])
    assert said.returncode == 0, said.stderr
    with fleet.enroll_lender("desk") as again:
        waits = again.document()
        assert waits["state"] == "waiting", "what was kept for it is of no use"
        assert waits["code"] != shown["code"]
        wait_until(lambda: [one["code"] for one in fleet.requests()] == [waits["code"]], "it")
        fleet.approve(waits["code"])
        assert again.document()["state"] == "enrolled"
    desk.start()
    fleet.grant(desk, "command")
    fleet.wait_lending(desk)


def test_the_operator_is_shown_who_it_is_and_asked(fleet: EnrollingFleet) -> None:
    fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        shown = enrolling.document()
        argv = [command("lender-broker"), "approve", shown["code"], "--submitters", fleet.submitter]
        argv += ["--state", str(fleet.folder / "broker"), "--url", fleet.url]
        screen = terminal(argv)
        screen.sees("[y/N]")
        whom = f"{fleet.submitter} alone"
        for wanted in (shown["code"], shown["fingerprint"], shown["key"], "desk", "lender", whom):
            assert wanted in screen.shown
        screen.press("n\n")
        assert screen.ends() == 1
        screen.close()
        assert enrolling.process.poll() is None
        screen = terminal(argv)
        screen.sees("[y/N]")
        screen.press("y\n")
        assert screen.ends() == 0
        screen.close()
        assert enrolling.document()["state"] == "enrolled"


def test_waiting_ends_with_ctrl_c_and_with_its_time(fleet: EnrollingFleet) -> None:
    fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        enrolling.document()
        enrolling.interrupt()
        assert enrolling.ended() == -signal.SIGINT  # of which a shell makes 130
        assert "Traceback" not in enrolling.complaint()
    with fleet.enroll_lender("desk", "--wait", "2s") as late:
        late.document()
        assert late.ended() == 1
        assert "nobody has approved it in time" in late.complaint()
    assert not (fleet.lenders["desk"].state / "fleet").exists()


def test_what_a_person_sees(fleet: EnrollingFleet) -> None:
    argv = [command("lender"), "enroll", fleet.url, "--role", "submitter", "--name", "alice"]
    key = fleet.folder / "alice.nk"
    screen = terminal([*argv, "--key", str(key)])
    screen.until(lambda: "lender-broker approve" in screen.shown, "the code")
    screen.until(lambda: "left; Ctrl-C ends it" in screen.shown, "progress")
    (waiting,) = fleet.requests()
    assert f"lender-broker approve {waiting['code']}" in screen.shown
    assert waiting["fingerprint"] in screen.shown
    fleet.approve(waiting["code"])
    assert screen.ends() == 0
    screen.close()
    assert "✓ let in as a submitter" in screen.shown
    assert "next:" in screen.shown
    assert key.read_text().strip() not in screen.shown
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (submitters_folder(key) / "fleet.creds").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nats://127.0.0.1:1", "--wait", "1s"), 5, "no NATS server"),
        (("nats://x:y@127.0.0.1",), 2, "no password"),
        (("nats://127.0.0.1:1", "--name", "\u0430lice"), 2, "letters, digits"),
        (("nats://127.0.0.1:1", "--token", "secret"), 2, "no join token"),
        (("nats://127.0.0.1:1", "--token", "-"), 2, "no join token"),
        (("nats://127.0.0.1:1", "--ca", "/none.pem"), 2, "can't read"),
    ],
)
def test_mistakes_say_how_to_mend_them(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    key = ("--role", "submitter", "--key", str(tmp_path / "a.nk"))
    said = subprocess.run(
        [command("lender"), "enroll", *arguments, *key],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert said.returncode == code, said.stderr
    assert says in said.stderr
    assert "Traceback" not in said.stderr
