"""A submitter's job ids sort by age; its key is private and never overwritten."""

import re
import stat
from pathlib import Path

import pytest

from lender.client.errors import KeyFault
from lender.client.job_ids import job_id
from lender.client.keys import (
    create_key,
    default_key_path,
    named_path,
    read_key,
    read_trusted,
)
from lender.client.trust import Trust
from lender.protocol.ids import JOB_ID_PATTERN


def test_job_ids_are_valid_and_sort_by_time() -> None:
    ids = [job_id(now, bytes([255 - step] * 10)) for step, now in enumerate((1.0, 1.25, 2e9))]
    assert ids == sorted(ids)
    assert all(re.fullmatch(JOB_ID_PATTERN, one) for one in ids)


def test_two_jobs_of_one_millisecond_differ_by_their_random_bits() -> None:
    assert job_id(7.0, b"0123456789") != job_id(7.0, b"0123456780")
    # The example of the ULID specification's layout: all bits set but the two that do not fit.
    assert job_id((2**48 - 1) / 1000, b"\xff" * 10) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@pytest.mark.parametrize(("now", "entropy"), [(-1.0, bytes(10)), (1.0, bytes(9))])
def test_a_job_id_needs_ten_random_bytes_and_a_sane_clock(now: float, entropy: bytes) -> None:
    with pytest.raises(ValueError, match="ten random bytes"):
        job_id(now, entropy)


def test_a_new_key_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.nk"
    public_key = create_key(path, bytes(range(32))).public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_key(path).public_key == public_key


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.nk"
    create_key(path, bytes(32))
    before = path.read_bytes()
    with pytest.raises(KeyFault, match="exists and is not overwritten"):
        create_key(path, bytes(range(32)))
    assert path.read_bytes() == before


def test_a_missing_key_names_keygen(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="lender keygen"):
        read_key(tmp_path / "none.nk")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.nk"
    create_key(path, bytes(32))
    path.chmod(0o640)
    with pytest.raises(KeyFault, match="chmod 600"):
        read_key(path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.nk"
    path.write_text("hunter2")
    path.chmod(0o600)
    with pytest.raises(KeyFault, match="nkey seed"):
        read_key(path)


def test_the_key_is_looked_for_where_the_environment_says() -> None:
    assert default_key_path({"LENDER_KEY": "/k", "XDG_CONFIG_HOME": "/x"}) == Path("/k")
    assert default_key_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/lender/submitter.nk")
    assert default_key_path({}) == Path.home() / ".config" / "lender" / "submitter.nk"


def test_lenders_to_trust_are_named_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trust"
    assert named_path({}, "LENDER_TRUST") is None
    assert named_path({"LENDER_TRUST": str(path)}, "LENDER_TRUST") == path
    path.write_text(f"# the lab\n\n{'U' + 'A' * 55} desk\n\t{'U' + 'B' * 55}\n")
    assert read_trusted(path) == ("U" + "A" * 55, "U" + "B" * 55)
    with pytest.raises(KeyFault, match="can't read"):
        read_trusted(tmp_path / "missing")


def test_what_is_no_key_is_not_trusted() -> None:
    with pytest.raises(KeyFault, match="no such key"):
        Trust(["U" + "A" * 55])
