"""Who was let in follows the fleet from one authority to the next, and nobody does anything."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from eavesdropper import Eavesdropper
from enrolling_fleet import EnrollingFleet
from nats_server import until
from vouching_server import VouchingServer

from broker.deployment import certificates
from broker.deployment.tokens import Key
from broker.service.leader_key import LeaderKey
from deploy.local.fleet import wait_until
from lender.client import Client
from lender.link import vouching
from lender.link.api import JetStream
from lender.link.connection import Connection
from lender.link.credentials import credentials
from lender.link.errors import StrangeAnswerError
from lender.link.membership import Membership, submitters_folder
from lender.protocol.streams import LEADER, leader_config
from lender.protocol.subjects import LEADERSHIP_KEY

PATIENT_S = 60.0
SOON_S = 0.05


def rotate(fleet: EnrollingFleet, server: VouchingServer, *arguments: str) -> None:
    said = fleet.broker_verb("rotate", "--authority", *arguments, "--ca", str(server.ca))
    assert said.returncode == 0, said.stderr


def enroll(fleet: EnrollingFleet, server: VouchingServer, role: str, *arguments: str) -> None:
    token = fleet.token("--role", role, "--ca", str(server.ca))
    copied = fleet.folder / "ca.pem"  # the machine's owner does not read the operator's folder
    copied.write_text(server.ca.read_text())
    copied.chmod(0o644)
    said = ("--ca", str(copied), "--role", role, "--token", token)
    with fleet.enroll(*said, *arguments) as enrolling:
        assert enrolling.ended() == 0, enrolling.complaint()


def vouching_for(folder: Path) -> str:
    membership = Membership.read(folder)
    assert membership is not None
    assert membership.ca is not None
    assert membership.ca.stat().st_mode & 0o777 == 0o600
    return membership.ca.read_text()


async def as_member(server: VouchingServer, folder: Path) -> tuple[Connection, str]:
    """One that has joined, of which we are the process."""
    key = Key.make("user", os.urandom(32))
    token = server.deployment.vouch("lender", key.public, "attic", (), time.time())
    Membership.write(folder, server.url, credentials(token, key.seed), server.ca.read_bytes())
    path = folder / "fleet.creds"
    return await server.connect(path), key.public


async def has_spoken(server: VouchingServer, authorities: str) -> None:
    """Wait until the broker that leads has said so."""
    said = authorities.encode().replace(b"\n", b"\\n")
    async with await server.broker() as line, asyncio.timeout(PATIENT_S):
        while True:
            stored = await JetStream(line).get_last(LEADER, LEADERSHIP_KEY)
            if stored is not None and said in stored.payload:
                return
            await asyncio.sleep(SOON_S)


async def test_a_new_authority_reaches_machines_and_submitters_and_the_old_ones_end_cuts_off_nobody(
    open_folder: Path,
) -> None:
    server = VouchingServer(open_folder / "broker")
    (open_folder / "broker").mkdir(exist_ok=True)
    await server.start()
    alice = open_folder / "alice.nk"
    try:
        with (
            Eavesdropper(open_folder),
            EnrollingFleet(open_folder, url=server.url) as fleet,
        ):
            desk = fleet.add("desk")
            enroll(fleet, server, "lender", "--state", str(desk.state))
            enroll(fleet, server, "submitter", "--name", "alice", "--key", str(alice))
            fleet.grant(desk, "command")
            fleet.wait_lending(desk)
            line, key = await as_member(server, open_folder / "attic")
            old = server.ca.read_text()

            rotate(fleet, server)
            both = server.ca.read_text()
            assert len(both) > len(old)
            await has_spoken(server, both)
            desk.kill()
            desk.start()
            wait_until(lambda: vouching_for(desk.state / "fleet") == both, "it has fetched it")
            kept = submitters_folder(alice) / "ca.pem"
            assert kept.read_text() == old
            for looked_at, found in ((time.time(), old), (0.0, both)):  # once in a day
                os.utime(kept, (looked_at, looked_at))
                async with Client(server.url, alice):
                    assert kept.read_text() == found

            rotate(fleet, server, "--retire", "--yes")
            new = server.ca.read_text()
            await has_spoken(server, new)
            # It did nothing all that time, but its line still stands.
            where = (open_folder / "attic", server.url, key)
            following = asyncio.create_task(vouching.keep(line, *where, every_s=SOON_S))
            await until(lambda: vouching_for(where[0]) == new, PATIENT_S)
            following.cancel()

            server.kill()
            await until(lambda: not line.connected, PATIENT_S)
            await server.start()
            await until(lambda: line.connected, PATIENT_S)
            await line.close()
            fleet.wait_lending(desk)
            async with Client(server.url, alice, connect_timeout_s=PATIENT_S) as submitter:
                assert len(await submitter.jobs()) == 0
    finally:
        server.kill()


async def test_a_broker_can_name_nobody_who_does_not_vouch_for_the_server_that_is_there(
    tmp_path: Path,
) -> None:
    """Else one word of it would cut off everybody, until somebody came with the right file."""
    server = VouchingServer(tmp_path)
    await server.start()
    try:
        line, key = await as_member(server, tmp_path / "attic")
        ours = vouching_for(tmp_path / "attic")
        other = certificates.make_authority("liar", time.time() + 60).certificate
        async with line, await server.broker() as broker:
            await JetStream(broker).ensure_stream(leader_config())
            for sequence, said in enumerate((other, "nonsense", "x" * 100_000)):
                await LeaderKey(broker, "liar", 1, lambda said=said: said).write(sequence)  # type: ignore[misc]
                where = (tmp_path / "attic", server.url, key)
                if said == "nonsense":
                    assert not await vouching.renew(line, *where)
                else:
                    with pytest.raises(StrangeAnswerError):
                        await vouching.renew(line, *where)
                assert vouching_for(tmp_path / "attic") == ours
            assert [one.name for one in (tmp_path / "attic").glob(".*")] == []
    finally:
        server.kill()
