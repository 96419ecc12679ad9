"""Workloads that people add in folders of their own, and what `lender workloads` says of all."""

import hashlib
import json
from pathlib import Path

import pytest

from lender.cli import workloads
from lender.cli.exits import CommandError
from lender.cli.parsing import parse
from lender.client.catalogue import Catalogue, load
from lender.client.workload import CatalogueError

MODULE = b"\0asm\1\0\0\0"
DIGEST = hashlib.sha256(MODULE).hexdigest()
LIMITS = """
[limits]
cpu = 2
memory_bytes = 1_048_577
time_s = 90
output_bytes = 0
scratch_bytes = 1024
"""


def add(folder: Path, name: str, title: str = "Mine", more: str = 'runtime = "process"') -> Path:
    described = folder / name
    described.mkdir(parents=True)
    (described / "sample.wasm").write_bytes(MODULE)
    text = f'name = "{name}"\ntitle = "{title}"\n{more}\n{LIMITS}'
    (described / "workload.toml").write_text(text)
    return described


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's own workloads lie."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "lender" / "workloads"
    folder.mkdir(parents=True)
    return folder


def listed(*words: str) -> int:
    return workloads.run(parse("workloads", workloads, words))


def test_a_folder_adds_a_workload_and_a_named_one_goes_first(own: Path, tmp_path: Path) -> None:
    add(own, "mine")
    add(own, "other")
    add(tmp_path / "more", "mine", "Another")
    for catalogue, title in (
        (Catalogue.of_user(), "Mine"),
        (Catalogue.of_user(tmp_path / "more"), "Another"),
    ):
        found = catalogue.find("mine")
        assert found is not None
        assert found.title == title
        assert catalogue.survey()[0][-2:].count(found) == 1
    for nobodys in ("absent", "../workloads/mine", "", "/"):
        assert Catalogue.of_user().find(nobodys) is None


def test_no_folder_takes_a_name_of_the_products(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = add(own, "checksum")
    catalogue = Catalogue.of_user()
    with pytest.raises(CatalogueError, match="checksum is a workload of the product's own") as told:
        catalogue.find("checksum")
    assert told.value.path == taken
    assert {one.name: one for one in catalogue.survey()[0]} == load()
    assert listed() == 1
    assert f"{taken}: checksum is a workload of the product's" in capsys.readouterr().err
    with pytest.raises(CommandError, match="no folder replaces it: rename yours"):
        listed("checksum")


def test_what_is_wrong_with_one_is_told_beside_all_others(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(own, "mine", "A title\\u001b[2J")
    (add(own, "broken") / "workload.toml").write_text("name = ")
    assert listed() == 1
    said = capsys.readouterr()
    assert f"{own / 'broken' / 'workload.toml'}: " in said.err
    assert "broken" not in said.out
    line = next(line for line in said.out.splitlines() if line.startswith("mine "))
    assert line.split()[1:3] == ["process", "-"]
    assert line.endswith(str(own / "mine"))
    assert "A title?[2J" in line, "a stranger's folder steers no terminal"


def test_one_is_told_with_all_that_an_owner_and_a_submitter_need(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"""\
runtime = "wasm"
requires = {{ gpu = "nvidia", vram_bytes = 1_048_577, os = "linux" }}
entry = "sample.wasm"
sha256 = "{DIGEST}"
arguments = {{ FILE = "what it reads", "[MODE]" = "how" }}
outputs = {{ stdout = "a word" }}
"""
    add(own, "mine", more=more)
    assert listed("mine") == 0
    said = capsys.readouterr().out
    assert f"the program sha256:{DIGEST}, by wasm" in said
    assert "FILE    what it reads" in said
    assert "[MODE]  how" in said
    assert "2 cores, 1.0 MiB of memory, 1m30s, 0 bytes of value, 1 KiB of files" in said
    # Of memory no less than a task asks for.
    assert f"--workload mine@{DIGEST} --cpu 2 --mem 2M --gpu --vram 2M --expires" in said
    assert "needs      linux, a GPU (nvidia) with 1.0 MiB of its memory" in said

    assert "lender submit --workload mine -- FILE [MODE]\n" in said

    assert listed("mine", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["workloads"]
    assert (told["sha256"], told["module"]) == (DIGEST, str(own / "mine" / "sample.wasm"))
    assert (told["folder"], told["limits"]["cpu"]) == (str(own / "mine"), 2)
    assert listed("--json") == 0
    every = {one["name"]: one for one in json.loads(capsys.readouterr().out)["workloads"]}
    assert every.keys() == {*load(), "mine"}
    assert every["checksum"]["folder"] is None


@pytest.mark.parametrize(
    ("name", "submit"),
    [
        ("checksum", "lender submit --workload checksum --in FILE -- FILE"),
        ("wasm", "lender submit --workload wasm --wasm MODULE -- ..."),
        ("python", 'client.submit_function(f, workload="python")'),
        ("image", "docs/protocol.md"),
        ("other", "lender submit --workload other --catalogue {} --in FILE=words"),
    ],
)
def test_how_to_submit_one_is_told(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, submit: str
) -> None:
    del own
    add(tmp_path / "more", "other", more='runtime = "process"\ninputs = {words = "a list"}')
    assert listed(name, "--catalogue", str(tmp_path / "more")) == 0
    assert submit.format(tmp_path / "more") in capsys.readouterr().out


def test_a_folder_that_is_none_of_workloads_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="absent: No such file"):
        listed("--catalogue", str(tmp_path / "absent"))
    with pytest.raises(CommandError, match="is one workload: name the folder that it lies in"):
        listed("--catalogue", str(add(own, "mine")))
    with pytest.raises(CommandError, match="no workload 'absent' is known here"):
        listed("absent")
