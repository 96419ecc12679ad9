import hashlib
import shutil
import tomllib
from pathlib import Path, PurePath

import pytest

import workloads
from lender.client.catalogue import load
from lender.client.workload import CatalogueError

MODULE = b"\0asm\1\0\0\0"
DIGEST = hashlib.sha256(MODULE).hexdigest()
DESCRIPTION = f"""
name = "sample"
title = "A sample"
runtime = "wasm"
entry = "sample.wasm"
sha256 = "{DIGEST}"

[limits]
cpu = 2
memory_bytes = 1_048_576
time_s = 1.5
output_bytes = 0
scratch_bytes = 10

[arguments]
zebra = "first"
"[ant]" = "second"
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "sample.wasm").write_bytes(MODULE)
    (folder / "workload.toml").write_text(DESCRIPTION)
    return folder


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "workload.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_description_is_read_as_written(sample: Path) -> None:
    one = load(sample.parent)["sample"]
    assert (one.name, one.title, one.runtime) == ("sample", "A sample", "wasm")
    assert (one.module, one.sha256) == (sample / "sample.wasm", DIGEST)
    limits = one.limits
    assert (limits.cpu, limits.memory_bytes, limits.time_s) == (2, 1 << 20, 1.5)
    assert (limits.output_bytes, limits.scratch_bytes) == (0, 10)
    assert list(one.arguments.items()) == [("zebra", "first"), ("[ant]", "second")]
    assert not one.inputs
    assert not one.outputs


def test_a_folder_without_description_is_no_workload(sample: Path) -> None:
    (sample.parent / "__pycache__").mkdir()
    (sample.parent / "README.md").write_text("")
    assert list(load(sample.parent)) == ["sample"]


def test_a_generic_workload_has_no_entry(sample: Path) -> None:
    rewrite(sample, f'entry = "sample.wasm"\nsha256 = "{DIGEST}"\n', "")
    one = load(sample.parent)["sample"]
    assert one.module is None
    assert one.sha256 is None


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "sample"', "", "name"),
        ('name = "sample"', 'name = "other"', "name"),
        ('name = "sample"', "name = 1", "name"),
        ('title = "A sample"', 'title = ""', "title"),
        ('runtime = "wasm"', 'runtime = "shell"', "runtime"),
        ('runtime = "wasm"', 'runtime = "process"', "entry"),
        ('entry = "sample.wasm"', "", "entry"),
        ('entry = "sample.wasm"', 'entry = "absent.wasm"', "entry"),
        ('entry = "sample.wasm"', 'entry = "../sample/sample.wasm"', "entry"),
        ('entry = "sample.wasm"', 'entry = "nul\\u0000.wasm"', "entry"),
        (f'sha256 = "{DIGEST}"', "", "sha256"),
        (DIGEST, DIGEST.upper(), "sha256"),
        (DIGEST, "0" * 64, "sha256"),
        ("[limits]", "color = 1\n[limits]", "color"),
        ("cpu = 2", "cpu = 0", "limits.cpu"),
        ("cpu = 2", "cpu = true", "limits.cpu"),
        ("cpu = 2", "cpu = 2.0", "limits.cpu"),
        ("cpu = 2", "", "limits.cpu"),
        ("cpu = 2", "cpu = 2\ncpus = 2", "limits.cpus"),
        ("1_048_576", "1_048_575", "limits.memory_bytes"),
        ("1.5", "0", "limits.time_s"),
        ("1.5", "true", "limits.time_s"),
        ("1.5", "inf", "limits.time_s"),
        ("1.5", "nan", "limits.time_s"),
        ("1.5", "1" + "0" * 400, "limits.time_s"),
        ("output_bytes = 0", "output_bytes = -1", "limits.output_bytes"),
        ("scratch_bytes = 10", 'scratch_bytes = "10"', "limits.scratch_bytes"),
        ('"first"', "1", "arguments.zebra"),
        ("[limits]", "inputs = 1\n[limits]", "inputs"),
        ("[limits]", 'command = ["x"]\n[limits]', "command"),
        ("[limits]", 'command = ["{x}"]\n[limits]', "command"),
        ("[limits]", 'command = "x"\n[limits]', "command"),
        ("[limits]", "[requires]\ngpu = 1\n[limits]", "requires.gpu"),
        ("[limits]", '[requires]\nlabels = ["x"]\n[limits]', "requires.labels"),
        ("[limits]", 'files = ["sample.wasm"]\n[limits]', "files"),
        ("[arguments]", '[arguments]\n"[early]" = "x"', "arguments"),
        ("[limits]", "[other]", "limits"),
    ],
)
def test_a_mistake_is_refused_with_its_file_and_field(
    sample: Path, old: str, new: str, field: str
) -> None:
    rewrite(sample, old, new)
    with pytest.raises(CatalogueError) as caught:
        load(sample.parent)
    assert caught.value.path == sample / "workload.toml"
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{sample / 'workload.toml'}: {field}: ")


@pytest.mark.parametrize("content", [b"name = ", b'name = "\xff"'])
def test_a_file_that_is_no_toml_is_refused_by_name(sample: Path, content: bytes) -> None:
    (sample / "workload.toml").write_bytes(content)
    with pytest.raises(CatalogueError) as caught:
        load(sample.parent)
    assert caught.value.path == sample / "workload.toml"
    assert caught.value.field == ""


def test_a_catalogue_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError) as caught:
        load(tmp_path / "absent")
    assert caught.value.path == tmp_path / "absent"


def test_a_description_that_is_a_folder_is_refused_by_name(sample: Path) -> None:
    (sample / "workload.toml").unlink()
    (sample / "workload.toml").mkdir()
    with pytest.raises(CatalogueError) as caught:
        load(sample.parent)
    assert caught.value.path == sample / "workload.toml"


def test_a_changed_module_is_refused(sample: Path) -> None:
    (sample / "sample.wasm").write_bytes(MODULE + b"\0")
    with pytest.raises(CatalogueError, match="sha256"):
        load(sample.parent)


def test_only_what_lies_in_its_folder_is_taken_along(sample: Path, tmp_path: Path) -> None:
    program = f'entry = "sample.wasm"\nsha256 = "{DIGEST}"\n'
    rewrite(sample, program, 'command = ["sh", "x.sh"]\nfiles = ["x.sh"]\n')
    rewrite(sample, '"wasm"', '"process"')
    (sample / "x.sh").touch()
    assert load(tmp_path)["sample"].carried == {"x.sh": sample / "x.sh"}
    (tmp_path / "secret").touch()
    for make, name in (
        (lambda: (sample / "x.sh").symlink_to(tmp_path / "secret"), "x.sh"),
        ((sample / "x.sh").mkdir, "x.sh"),
        ((sample / "x.sh").touch, "../secret"),
    ):
        path = sample / "x.sh"
        path.rmdir() if path.is_dir() else path.unlink()
        make()
        text = (sample / "workload.toml").read_text()
        rewrite(sample, '["x.sh"]', f'["{name}"]')
        with pytest.raises(CatalogueError, match="files"):
            load(tmp_path)
        (sample / "workload.toml").write_text(text)
    rewrite(sample, "[arguments]", '[inputs]\n"x.sh" = "x"\n[arguments]')
    with pytest.raises(CatalogueError, match=r"files: x\.sh is an input already"):
        load(tmp_path)


def test_the_package_brings_its_catalogue() -> None:
    found = load()
    assert {name: (one.runtime, one.entry is not None) for name, one in found.items()} == {
        "checksum": ("wasm", True),
        "command": ("process", False),
        "image": ("oci", False),
        "pytest-shard": ("process", False),
        "gpu-matmul": ("process", False),
        "nix-build": ("process", False),
        "python": ("python", False),
        "render": ("wasm", True),
        "transcode": ("process", False),
        "wasm": ("wasm", False),
    }


def test_the_package_takes_along_whatever_its_workloads_name() -> None:
    project = tomllib.loads((Path(workloads.__file__).parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["workloads"]
    for one in load().values():
        for name in filter(None, ["workload.toml", one.entry, *one.files]):
            path = PurePath(one.name, name)
            assert any(path.match(pattern) for pattern in patterns), path


def test_each_workload_of_the_package_explains_itself(tmp_path: Path) -> None:
    home = Path(workloads.__file__).parent
    for name in load():
        assert (home / name / "README.md").read_text().startswith(f"# {name}\n")
        assert f"[{name}]({name}/README.md)" in (home / "README.md").read_text()
    # The catalogue needs nothing around it: a copy elsewhere loads as well.
    shutil.copytree(home, tmp_path / "copy")
    assert list(load(tmp_path / "copy")) == list(load())
