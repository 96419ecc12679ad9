"""An output lands in the folder that was named, whole, or nowhere."""

from pathlib import Path

import pytest

from lender.client.destinations import destination
from lender.client.errors import ContentFault


def test_an_output_lands_below_the_folder(tmp_path: Path) -> None:
    path = destination(tmp_path, "a/b.txt", ("a/b.txt",))
    assert path == tmp_path / "a" / "b.txt"
    assert path.parent.is_dir()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "x\n", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContentFault, match="not a name"):
        destination(tmp_path / "into", name, (name,))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_the_job_did_not_ask_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentFault, match="asked for no output"):
        destination(tmp_path, ".bashrc", ("result.txt",))


def test_a_symbolic_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    into, elsewhere = tmp_path / "into", tmp_path / "elsewhere"
    into.mkdir()
    elsewhere.mkdir()
    (into / "link").symlink_to(elsewhere)
    with pytest.raises(ContentFault, match="symbolic link"):
        destination(into, "link/x", ("link/x",))
    assert list(elsewhere.iterdir()) == []
