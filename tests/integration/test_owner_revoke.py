"""`lender revoke`: dead, wiped, withdrawn for good, whatever state lenderd and the disk are in."""

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from owner_machine import ALICE, BOB, Machine, grant, machine, until

from lender.sandbox.plan import Limits
from lender.sandbox.processes import cgroup, subtree, tree
from lender.state.attempt_records import AttemptRecord, AttemptRecords
from lender.state.consent_files import load_consent, read_consent
from lender.state.purge import kept_submitters
from lender.state.receipts import ReceiptLog

__all__ = ["machine"]


def gone(record: AttemptRecord) -> bool:
    return not tree.members(record.roots) and not Path(record.scratch).exists()


def test_with_lenderd_up_it_kills_wipes_and_withdraws(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    members = tree.members(record.roots)
    assert len(members) > 1
    code, told = machine.json("revoke", "--all")
    assert code == 0
    assert told["schema"] == "lender.revoke/1"
    assert told["grants"] == ["G-1"]
    assert (told["jobs"], told["daemon"], told["verified"]) == (1, "answered", True)
    assert told["processes"] >= len(members)
    assert told["freed_bytes"] >= 100_000
    assert gone(record)
    assert not any(tree.alive(member) for member in members)
    assert daemon.poll() is None
    assert read_consent(machine.state).valid(time.time()) == ()


def test_with_lenderd_stopped_it_is_killed_and_nothing_is_left(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    done = machine.lender("revoke", "--all")
    assert done.returncode == 0, done.stderr
    assert "1 grant withdrawn (saved on this machine)" in done.stdout
    assert "lenderd was killed: no answer within 0.5 s" in done.stdout
    assert "Nothing can run until you type `lender grant`." in done.stdout
    assert gone(record)
    assert daemon.wait(5) == -signal.SIGKILL
    receipts = list(ReceiptLog(machine.state.receipts).read())
    assert [(r["job"], r["outcome"]) for r in receipts] == [("job-one", "revoked")]


def test_without_lenderd_the_receipt_says_what_is_known(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    assert machine.lender("revoke", "--all").returncode == 0
    (told,) = ReceiptLog(machine.state.receipts).read()
    took_s = told["ended_at"] - told["started_at"]
    assert took_s >= 10
    assert told["cpu_s"] == pytest.approx(2 * took_s)
    assert told["bytes_in"] == 10_000
    full = machine.lender("log", "job-one").stdout
    assert "program sha256:abababababab… · in in.npz" in full
    assert "(estimate: all its time, on 2 cores)" in full


def test_without_lenderd_the_cpu_time_is_the_kernels_count(machine: Machine) -> None:
    idle = subprocess.Popen(["/bin/sleep", "60"])
    cgroups = subtree.claim(machine.state.path, idle.pid, None)
    try:
        if cgroups is None:
            pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
        record = machine.attempt("one", grant(machine.state, "G-1"))
        leaf = cgroups.leaf("one")
        cgroups.make(leaf, Limits(1, 64 << 20, 60, 1000, 1 << 20, 64))
        for member in tree.members(record.roots):
            with contextlib.suppress(OSError):  # ended meanwhile
                (leaf / "cgroup.procs").write_text(str(member.pid))
        AttemptRecords(machine.state.attempts).write(record._replace(cgroup=str(leaf)))
        until(lambda: cgroup.cpu_s(leaf) > 0.05, "it computes")
        assert machine.lender("revoke", "--all").returncode == 0
        (told,) = ReceiptLog(machine.state.receipts).read()
        assert told["cpu_method"] == "counted by the kernel"
        assert 0.05 < told["cpu_s"] < 10
    finally:
        idle.kill()
        idle.wait()
        if cgroups is not None:
            cgroups.close()


def test_with_lenderd_dead_and_its_socket_left_behind(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    daemon = machine.daemon()
    daemon.kill()
    daemon.wait()
    code, told = machine.json("revoke", "--all")
    assert (code, told["daemon"]) == (0, "absent")
    assert gone(record)


def test_what_lenderd_was_launching_meanwhile_is_killed_too(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon(launch_on_reload="G-1")
    code, told = machine.json("revoke", "--grant", "G-1")
    assert (code, told["jobs"], told["processes"]) == (0, 1, 1)
    assert not (machine.state.scratch / "late").exists()


def test_one_submitters_work_ends_and_the_others_goes_on(machine: Machine) -> None:
    of_alice = machine.attempt("one", grant(machine.state, "G-1", ALICE))
    of_bob = machine.attempt("two", grant(machine.state, "G-2", BOB))
    machine.daemon()
    done = machine.lender("revoke", "--submitter", "alice")
    assert done.returncode == 0
    assert "1 other grant still holds" in done.stdout
    assert gone(of_alice)
    assert len(tree.members(of_bob.roots)) > 1
    assert [g.id for g in read_consent(machine.state).valid(time.time())] == ["G-2"]


def test_a_workload_can_be_withdrawn_from_one_submitter(machine: Machine) -> None:
    grant(machine.state, "G-1", ALICE, "render")
    grant(machine.state, "G-2", ALICE, "checksum")
    grant(machine.state, "G-3", BOB, "render")
    assert machine.lender("revoke", "--submitter", ALICE, "--class", "render").returncode == 0
    assert [g.id for g in read_consent(machine.state).valid(time.time())] == ["G-2", "G-3"]


def test_work_whose_grant_file_was_deleted_by_hand_is_still_ended(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    (machine.state.grants / "G-1.toml").unlink()
    assert machine.lender("revoke", "--submitter", ALICE).returncode == 0
    assert gone(record)


def test_a_revoked_grant_stays_dead_when_its_file_is_put_back(machine: Machine) -> None:
    grant(machine.state, "G-1")
    path = machine.state.grants / "G-1.toml"
    content = path.read_bytes()
    assert machine.lender("revoke", "--all").returncode == 0
    path.write_bytes(content)
    assert read_consent(machine.state).valid(time.time()) == ()


def test_a_faulty_grant_is_withdrawn_before_it_is_mended(machine: Machine) -> None:
    grant(machine.state, "G-1")
    path = machine.state.grants / "G-1.toml"
    content = path.read_text()
    path.write_text(content + "broken")
    assert machine.lender("revoke", "--all").returncode == 0
    path.write_text(content)
    assert read_consent(machine.state).valid(time.time()) == ()


NOTHING_CAN_RUN = "Nothing can run until you type `lender grant`."


def valid(machine: Machine) -> list[str]:
    return [one.id for one in read_consent(machine.state).valid(time.time())]


def grants_of_both(machine: Machine) -> None:
    grant(machine.state, "G-1", ALICE, "render")
    grant(machine.state, "G-2", BOB, "checksum")


def mend(machine: Machine) -> None:
    """What doctor and the next start of lenderd do."""
    machine.state.create()
    for path in machine.state.grants.iterdir():
        path.chmod(0o600)


@pytest.mark.parametrize("arguments", [["--all"], ["--submitter", "alice"], ["--class", "render"]])
def test_what_a_fault_of_its_folder_hides_is_withdrawn_too(
    machine: Machine, arguments: list[str]
) -> None:
    grants_of_both(machine)
    machine.state.grants.chmod(0o770)
    done = machine.lender("revoke", *arguments)
    assert done.returncode == 0, done.stdout
    assert "no grant to withdraw" not in done.stdout
    everything = arguments == ["--all"]
    assert (NOTHING_CAN_RUN in done.stdout) == everything
    assert ("! not withdrawn, and allows nothing as long as" in done.stdout) != everything
    mend(machine)
    assert valid(machine) == ([] if everything else ["G-2"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--submitter", "alice"],
        ["--submitter", ALICE],
        ["--workload", "render"],
        ["--grant", "G-1"],
        ["--submitter", ALICE, "--workload", "render"],
    ],
)
def test_a_grant_whose_file_others_can_write_is_withdrawn_before_it_is_mended(
    machine: Machine, arguments: list[str]
) -> None:
    grants_of_both(machine)
    for one in ("G-1", "G-2"):
        (machine.state.grants / f"{one}.toml").chmod(0o620)
    code, told = machine.json("revoke", *arguments)
    assert (code, told["grants"], told["unclear"]) == (0, ["G-1"], [])
    mend(machine)
    assert valid(machine) == ["G-2"]


@pytest.mark.parametrize("fault", ["torn", "link"])
def test_what_does_not_say_whose_it_is_is_withdrawn_and_told(machine: Machine, fault: str) -> None:
    grants_of_both(machine)
    path = machine.state.grants / "G-1.toml"
    content = path.read_bytes()
    if fault == "torn":
        path.write_bytes(content + b"broken")
    else:
        path.rename(machine.state.path / "elsewhere.toml")
        path.symlink_to(machine.state.path / "elsewhere.toml")
    done = machine.lender("revoke", "--submitter", ALICE)
    assert done.returncode == 0
    assert f"! withdrawn too, it may be meant: {path}" in done.stdout
    assert "1 other grant still holds." in done.stdout
    path.unlink()
    path.write_bytes(content)
    mend(machine)
    assert valid(machine) == ["G-2"]


def test_a_grant_under_a_name_of_another_is_withdrawn_by_both(machine: Machine) -> None:
    grants_of_both(machine)
    path = machine.state.grants / "G-1.toml"
    path.rename(path.with_name("a copy.toml"))
    assert machine.lender("revoke", "--submitter", ALICE).returncode == 0
    path.with_name("a copy.toml").rename(path)
    assert valid(machine) == ["G-2"]


def test_what_another_file_claims_ends_no_grant_that_holds(machine: Machine) -> None:
    grants_of_both(machine)
    stray = machine.state.grants / "G-3.toml"
    content = (machine.state.grants / "G-1.toml").read_text()
    stray.write_text(content.replace('"G-1"', '"G-2"'))
    assert machine.lender("revoke", "--submitter", ALICE).returncode == 0
    assert valid(machine) == ["G-2"]


def test_a_file_that_no_tombstone_can_name_is_told(machine: Machine) -> None:
    grant(machine.state, "G-1")
    (machine.state.grants / "what is this.toml").write_text("broken")
    done = machine.lender("revoke", "--all")
    assert done.returncode == 6
    assert "1 grant withdrawn" in done.stdout
    assert "✗ could not be withdrawn: " in done.stdout
    assert NOTHING_CAN_RUN not in done.stdout


def test_a_folder_that_cannot_be_listed_is_not_called_withdrawn(machine: Machine) -> None:
    grant(machine.state, "G-1")
    hidden = machine.state.path / "hidden"
    machine.state.grants.rename(hidden)
    machine.state.grants.write_text("no folder")
    done = machine.lender("revoke", "--all")
    assert done.returncode == 6
    assert f"✗ could not be withdrawn: {machine.state.grants} (Not a directory)" in done.stdout
    assert NOTHING_CAN_RUN not in done.stdout
    # By its name a grant can be withdrawn all the same.
    assert machine.lender("revoke", "--grant", "G-1").returncode == 0
    machine.state.grants.unlink()
    hidden.rename(machine.state.grants)
    assert valid(machine) == []


def test_as_long_as_something_else_bans_all_grants_a_new_one_is_no_way_out(
    machine: Machine,
) -> None:
    grant(machine.state, "G-1")
    (machine.state.tombstones / "strange name").touch()
    done = machine.lender("revoke", "--all")
    assert "every grant counts as withdrawn as long as this is so: strange name" in done.stdout
    assert NOTHING_CAN_RUN not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "say what to withdraw"),
        (["--submitter", "nobody"], 1, "no grant matches"),
        (["--grant", "G-9"], 1, "no grant matches"),
        (["--al", "--nonsense"], 2, "unrecognized arguments"),
    ],
)
def test_words_that_mean_nothing_withdraw_nothing(
    machine: Machine, arguments: list[str], code: int, says: str
) -> None:
    grant(machine.state, "G-1")
    done = machine.lender("revoke", *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert len(read_consent(machine.state).valid(time.time())) == 1


def keep(machine: Machine, submitter: str) -> None:
    """What runs of a submitter's leave on this machine."""
    for folder in (machine.state.inputs(submitter) / "ab", machine.state.modules(submitter)):
        folder.mkdir(parents=True)
        (folder / "kept").write_bytes(b"x" * 100_000)
    machine.state.reports(submitter).mkdir()
    (machine.state.reports(submitter) / "lease-000001.report").write_bytes(b"result")


@pytest.mark.parametrize("daemon", ["none", "up", "stopped"])
def test_nothing_of_a_revoked_submitter_stays_on_the_disk(machine: Machine, daemon: str) -> None:
    machine.attempt("one", grant(machine.state, "G-1", ALICE))
    grant(machine.state, "G-2", BOB)
    keep(machine, ALICE)
    keep(machine, BOB)
    if daemon != "none":
        process = machine.daemon()
    if daemon == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
    code, told = machine.json("revoke", "--submitter", "alice")
    assert (code, told["purge_left"]) == (0, [])
    assert told["purged_bytes"] >= 200_000
    assert kept_submitters(machine.state) == {BOB}
    assert machine.lender("revoke", "--all").returncode == 0
    assert kept_submitters(machine.state) == set()


def test_who_is_still_allowed_something_keeps_their_inputs(machine: Machine) -> None:
    grant(machine.state, "G-1", ALICE, "render")
    grant(machine.state, "G-2", ALICE, "checksum")
    keep(machine, ALICE)
    assert machine.lender("revoke", "--class", "render").returncode == 0
    assert kept_submitters(machine.state) == {ALICE}
    assert machine.lender("revoke", "--class", "checksum").returncode == 0
    assert kept_submitters(machine.state) == set()


def test_what_is_kept_of_someone_without_a_grant_can_be_revoked(machine: Machine) -> None:
    keep(machine, ALICE)
    assert machine.lender("revoke", "--submitter", ALICE).returncode == 0
    assert kept_submitters(machine.state) == set()


def test_what_cannot_be_deleted_is_told(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file that its owner can't delete needs root")
    grant(machine.state, "G-1", ALICE)
    keep(machine, ALICE)
    stuck = machine.state.modules(ALICE) / "kept"
    if subprocess.run(["chattr", "+i", stuck], capture_output=True, check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        done = machine.lender("revoke", "--all")
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    assert done.returncode == 6
    assert f"could not be deleted: {machine.state.cache / ALICE}" in done.stdout


def test_without_room_for_content_the_tombstones_are_empty_and_hold(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, told = machine.json("revoke", "--all", preexec_fn=no_room)
    assert (code, told["not_saved"]) == (0, "")
    assert gone(record)
    assert read_consent(machine.state).valid(time.time()) == ()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own without a free block or inode."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=1m,nr_inodes=64,mode=755"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this root may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (place / f"filler-{number}").touch()
    with pytest.raises(OSError, match="space"):
        (place / "one-more").touch()


def test_on_a_full_disk_it_says_what_is_not_saved_and_still_kills(full_disk: Path) -> None:
    made = Machine(full_disk / "state")
    try:
        record = made.attempt("one", grant(made.state, "G-1"))
        keep(made, ALICE)
        os.kill(made.daemon().pid, signal.SIGSTOP)
        # What the guest leaves is on this disk too: it must not free the room beforehand.
        fill(full_disk)
        done = made.lender("revoke", "--all")
        assert done.returncode == 6
        assert "no tombstone could be saved (No space left on device)" in done.stdout
        assert "the files of 1 grant were set aside instead" in done.stdout
        assert gone(record)
        assert kept_submitters(made.state) == set()
        assert load_consent(made.state).consent.valid(time.time()) == ()
    finally:
        made.close()


def test_an_attempt_that_cannot_be_read_ends_lenderd_and_all_below_it(machine: Machine) -> None:
    grant(machine.state, "G-1")
    daemon = machine.daemon()
    (machine.state.attempts / "torn.json").write_text("{")
    done = machine.lender("revoke", "--all")
    assert done.returncode == 0
    assert "lenderd was killed: " in done.stdout
    assert "torn.json can't be read" in done.stdout
    assert "did not answer" not in done.stdout
    assert daemon.wait(5) == -signal.SIGKILL


def test_what_cannot_be_read_may_be_what_was_meant(machine: Machine) -> None:
    (machine.state.attempts / "torn.json").write_text("{")
    done = machine.lender("revoke", "--submitter", ALICE)
    assert done.returncode == 1
    assert "torn.json can't be read" in done.stderr
    assert "lender revoke --all" in done.stderr


def test_an_unreadable_record_without_lenderd_is_not_called_verified(machine: Machine) -> None:
    (machine.state.attempts / "torn.json").write_text("{")
    done = machine.lender("revoke", "--all")
    assert done.returncode == 6
    assert "torn.json can't be read: remove it" in done.stdout


def test_records_of_an_earlier_boot_kill_nobody(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    path = machine.state.attempts / "one.json"
    path.write_text(path.read_text().replace('"boot_id": "', '"boot_id": "0'))
    assert machine.lender("revoke", "--all").returncode == 0
    assert len(tree.members(record.roots)) > 1
    assert not Path(record.scratch).exists()


def test_only_folders_of_the_scratch_are_wiped(machine: Machine, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    linked = machine.state.scratch / "linked"
    linked.symlink_to(precious)
    (precious / "file").write_text("mine")
    for lease, scratch in (("out", precious), ("linked", linked)):
        AttemptRecords(machine.state.attempts).write(
            AttemptRecord(lease, "job", ALICE, "render", "G-1", (), str(scratch))
        )
    done = machine.lender("revoke", "--all")
    assert done.returncode == 6
    assert f"{precious} (not below" in done.stdout
    assert (precious / "file").read_text() == "mine"
    assert not linked.is_symlink()


def test_links_and_locked_folders_in_the_scratch_are_no_obstacle(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    record = machine.attempt("one", grant(machine.state, "G-1"))
    scratch = Path(record.scratch)
    (scratch / "link").symlink_to(tmp_path / "precious")
    (scratch / "folder" / "inner").mkdir(parents=True)
    (scratch / "to").symlink_to(tmp_path)
    (scratch / "folder").chmod(0)
    scratch.chmod(0)
    assert machine.lender("revoke", "--all").returncode == 0
    assert gone(record)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_closed_pipe_stops_nothing(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    reader, writer = os.pipe()
    os.close(reader)
    machine.lender("revoke", "--all", stdout=writer)
    os.close(writer)
    assert gone(record)


def test_a_strangers_state_folder_is_not_for_others(machine: Machine) -> None:
    record = machine.attempt("one", grant(machine.state, "G-1"))
    for arguments in (["revoke", "--all"], ["resume"], ["grants"], ["log"], ["doctor"]):
        done = machine.lender_as_stranger(*arguments)
        assert done.returncode == 4, (arguments, done.stdout, done.stderr)
        assert "only that user and root" in done.stderr
    assert len(tree.members(record.roots)) > 1


def test_root_acts_as_the_folders_owner_and_cannot_be_pointed_at_others(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    of_root = machine.attempt("one", grant(machine.state, "G-1"))
    for path in [machine.state.path, *machine.state.path.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    done = machine.lender("revoke", "--all")
    assert done.returncode == 6, done.stdout
    assert "not verified that nothing is left" in done.stdout
    assert len(tree.members(of_root.roots)) > 1
    until(lambda: machine.state.tombstone("G-1").exists(), "the withdrawal")
    assert machine.state.tombstone("G-1").stat().st_uid == 65534
