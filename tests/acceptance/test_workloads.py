"""Each workload of the catalogue, and one of somebody's own, by its name alone on a real fleet."""

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
import wave
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import matrices
import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet
from lender.client import BlockingClient, Catalogue, Client
from lender.service.workload_folders import installed_workloads

CONTENT = b"lend me your ears\n" * 10_000
DIGEST = f"{hashlib.sha256(CONTENT).hexdigest()}  file.bin\n"
WORKLOADS = ("checksum", "hash", "transcode", "pytest-shard", "nix-build")

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(240)


def needs(command: str, package: str) -> None:
    """Skip where the sandbox has no such command; it sees no others than these."""
    if shutil.which(command, path="/usr/bin:/bin") is None:
        pytest.skip(f"{command} is not installed (Debian package: {package})")


@pytest.fixture(scope="module")
def added() -> Iterator[Path]:
    """A folder with one workload of an owner's own, which the lenders' user can read."""
    folder = Path(tempfile.mkdtemp(prefix="lender-test-"))
    folder.chmod(0o755)
    ours = installed_workloads() / "checksum"
    shutil.copytree(ours, folder / "hash")
    described = folder / "hash" / "workload.toml"
    described.write_text(described.read_text().replace('"checksum"', '"hash"'))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def standing(added: Path) -> Iterator[StandingFleet]:
    env = {"LENDERD_ADDED_WORKLOADS": json.dumps([str(added)])}
    with StandingFleet("desk", "attic", workloads=WORKLOADS, env=env) as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    fleet = standing.in_order()
    (fleet.folder / "file.bin").write_bytes(CONTENT)
    return fleet


def test_a_workload_is_submitted_by_its_name_from_anywhere(fleet: Fleet) -> None:
    said = fleet.submit("submit", "--workload", "checksum", "--in", "file.bin", "--", "file.bin")
    assert (said.returncode, said.stdout) == (0, DIGEST), said.stderr
    file = fleet.folder / "job.toml"
    file.write_text('workload = "checksum"\ncommand = ["file.bin"]\ninputs = ["file.bin"]\n')
    said = fleet.submit("run", str(file))
    assert (said.returncode, said.stdout) == (0, DIGEST), said.stderr
    with BlockingClient(Client(fleet.url, fleet.key)) as client:
        checksum = Catalogue()["checksum"]
        job = client.submit(["file.bin"], workload=checksum, inputs={"file.bin": CONTENT})
        assert job.result(timeout_s=60).value.decode() == DIGEST


def test_one_of_somebodys_own_runs_until_its_module_is_another(
    fleet: Fleet, added: Path, tmp_path: Path
) -> None:
    words = ("submit", "--workload", "hash", "--in", "file.bin", "--queue-time", "2")
    said = fleet.submit(*words, "--catalogue", str(added), "--", "file.bin")
    assert (said.returncode, said.stdout) == (0, DIGEST), said.stderr
    for lender in fleet.lenders.values():
        (granted,) = (one for one in lender.status()["grants"] if one["workload"] == "hash")
        assert granted["digest"] == Catalogue((added,))["hash"].sha256

    # The submitter's own folder says what it sends, and lets nobody run it.
    mine = shutil.copytree(added / "hash", tmp_path / "hash")
    module = (mine / "checksum.wasm").read_bytes() + b"\0\x02\x01x"  # a section of its own
    (mine / "checksum.wasm").write_bytes(module)
    described = mine / "workload.toml"
    before, after = Catalogue((added,))["hash"].sha256 or "", hashlib.sha256(module).hexdigest()
    described.write_text(described.read_text().replace(before, after))
    said = fleet.submit(*words, "--catalogue", str(tmp_path), "--", "file.bin")
    assert (said.returncode, said.stdout) == (1, "")
    assert "expired" in said.stderr


def test_transcode_keeps_every_sample_in_a_format_without_loss(fleet: Fleet) -> None:
    needs("ffmpeg", "ffmpeg")
    samples = b"".join((index * index % 20_000).to_bytes(2, "little") for index in range(4_000))
    for task in range(2):
        with wave.open(str(fleet.folder / f"{task}.wav"), "wb") as file:
            file.setparams((1, 2, 8_000, 0, "NONE", ""))
            file.writeframes(samples)
    words = ("--workload", "transcode", "--in", "0.wav")
    said = fleet.submit("submit", *words, "--", "0.wav", "a.flac", "-compression_level", "12")
    assert said.returncode == 0, said.stderr
    sound = (fleet.folder / "a.flac").read_bytes()
    # The format keeps the digest of what was encoded (RFC 9639, 8.2).
    assert (sound[:4], sound[26:42]) == (b"fLaC", hashlib.md5(samples).digest())

    words = ("--array", "0-1", "--into", "out", *words, "--in", "1.wav")
    said = fleet.submit("map", *words, "--", "{task}.wav", "a.flac")
    assert said.returncode == 0, said.stderr
    made = [(fleet.folder / "out" / f"{task}.out" / "a.flac").read_bytes() for task in range(2)]
    assert [one[26:42] for one in made] == [sound[26:42]] * 2


PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
"""It, and what it needs: `pip install --target .deps pytest` without an index."""


def test_pytest_shard_runs_each_file_once_on_several_machines(fleet: Fleet, tmp_path: Path) -> None:
    needs("python3", "python3")
    names = ["test_a.py", "test_b.py", "deep/test_c.py", "deep/test_d.py", "test_e.py", "checks.py"]
    (tmp_path / "deep").mkdir()
    for name in names:
        (tmp_path / name).write_text("import helper\n\ndef test_one():\n    assert helper.ANSWER\n")
    (tmp_path / "test_b.py").write_text("def test_one():\n    assert 6 * 9 == 42\n")
    (tmp_path / "helper.py").write_text("ANSWER = 42\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = test_*.py checks.py\n")
    with tarfile.open(fleet.folder / "tests.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(tmp_path, ".")
        for name in PYTEST:
            for file in metadata.files(name) or ():
                if file.suffix == ".py" or file.name == "METADATA":
                    archive.add(str(file.locate()), f".deps/{file}")

    words = ("--workload", "pytest-shard", "--array", "0-2", "--in", "tests.tgz=suite.tar")
    said = fleet.submit("map", "--json", *words, "--", "-v", within_s=120)
    assert said.returncode == 1, "one of the tests fails"
    tasks = [json.loads(line) for line in said.stdout.splitlines()]
    ran = [re.findall(r"^(\S+)::test_one (\w+)", one["value"], re.MULTILINE) for one in tasks]
    ended = dict(one for share in ran for one in share)
    assert sum(map(len, ran)) == len(ended) == len(names)
    assert ended == dict.fromkeys(names, "PASSED") | {"test_b.py": "FAILED"}
    assert [len(share) > 0 for share in ran] == [True] * 3
    assert {one["state"] for one in tasks} == {"succeeded", "failed"}


EXPRESSION = """\
{ word }:
derivation {
  name = "greeting";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "mkdir $out; echo hello $word > $out/greeting; cat ${./part} >> $out/greeting" ];
  PATH = "/usr/bin:/bin";
  inherit word;
}
"""


def test_nix_build_brings_back_what_an_expression_describes(fleet: Fleet, tmp_path: Path) -> None:
    needs("nix-build", "nix-bin")
    (tmp_path / "default.nix").write_text(EXPRESSION)
    (tmp_path / "part").write_text("and goodbye\n")
    with tarfile.open(fleet.folder / "greeting.tar", "w") as archive:
        archive.add(tmp_path, ".")
    words = ("--workload", "nix-build", "--in", "greeting.tar=source.tar")
    said = fleet.submit("submit", *words, "--", "--argstr", "word", "world", within_s=120)
    assert said.returncode == 0, said.stderr
    assert re.fullmatch(r"/work/nix/store/\w+-greeting\n", said.stdout)
    with tarfile.open(fleet.folder / "result.tar") as archive:
        file = archive.extractfile("result/greeting")
        assert file is not None
        assert file.read() == b"hello world\nand goodbye\n"
    said = fleet.submit("submit", *words, "--", "--argstr", "number", "1", within_s=120)
    assert said.returncode == 1, "an expression that takes no such argument"
    assert "error: " in said.stderr


def test_gpu_matmul_multiplies_exactly(fleet: Fleet) -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("no NVIDIA GPU on this machine: there is no /dev/nvidiactl")
    needs("python3", "python3")
    a, b = matrices.sample(200, 130, 5), matrices.sample(130, 70, 3)
    matrices.write(fleet.folder / "a.npy", a)
    matrices.write(fleet.folder / "b.npy", b)
    grant = ("--workload", "gpu-matmul", "--mem", "2G", "--gpu", "--when", "always")
    for lender in fleet.lenders.values():
        said = lender.owner("grant", f"demo={fleet.submitter}", *grant, "--expires", "1d", "--yes")
        assert said.returncode == 0, said.stderr
    words = ("--workload", "gpu-matmul", "--in", "a.npy", "--in", "b.npy", "--", "a.npy", "b.npy")
    said = fleet.submit("submit", *words, "c.npy", within_s=120)
    assert said.returncode == 0, said.stderr
    assert ": 200 x 130 x 70 in " in said.stdout
    assert matrices.read(fleet.folder / "c.npy") == matrices.product(a, b)
