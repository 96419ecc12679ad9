"""What `lender-broker init --cluster` makes is what deploy/kubernetes asks for: brokers read their
Secret as kubelet lays it out, and NATS takes the chart's values with the accounts in them."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from broker_parts import ALICE, COMMAND
from manifests import FOLDER, Manifest, containers, of_kind, read

from broker.deployment.folder import Deployment
from broker.service.settings import BrokerSettings
from broker.service.submitters import SubmittersFile
from lender.link.credentials import connect_options
from lender.link.embedded import find_server
from lender.service.settings import load

SECRETS = re.compile(r"kubectl create secret generic (\S+)((?:\s*\\?\s*--from-file=\S+)+)")
"""How the README has an operator make them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """The deployment that the README's own command makes."""
    state = tmp_path_factory.mktemp("operator")
    text = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    (said,) = re.findall(r"^lender-broker init (.*)$", text, re.MULTILINE)
    program = [*COMMAND, "init", *said.split()]
    subprocess.run([*program, "--state", str(state)], check=True, timeout=60)
    return Deployment(state / "deployment")


def secret(made: Deployment, name: str) -> dict[str, Path]:
    """The files of a Secret, as the README has it made in the deployment's folder."""
    text = (FOLDER / "README.md").read_text()
    files = dict(SECRETS.findall(text))[name]
    found = {}
    for said in re.findall(r"--from-file=(\S+)", files):
        key, _, path = said.rpartition("=")
        for one in made.folder.glob(path):
            found[key or one.name] = one
    return found


def broker_pod() -> tuple[Manifest, Manifest]:
    (deployment,) = of_kind(read("base/broker.yaml"), "Deployment")
    return next(containers(deployment))


def mounted(files: dict[str, Path], items: list[dict[str, str]], at: Path, mode: int) -> None:
    """Lay files out as kubelet does: links to links to a folder that it exchanges as a whole."""
    content = at / "..2026"
    for item in items:
        target = content / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[item["key"]].read_bytes())
        target.chmod(mode)
    (at / "..data").symlink_to(content.name)
    for one in {item["path"].partition("/")[0] for item in items}:
        (at / one).symlink_to(Path("..data") / one)


def test_brokers_read_their_secret_as_it_is_mounted(made: Deployment, tmp_path: Path) -> None:
    pod, container = broker_pod()
    (volume,) = (one["secret"] for one in pod["volumes"] if "secret" in one)
    files = secret(made, volume["secretName"])
    assert not [path for path in files.values() if path.parent.name == "operator"]
    assert files.keys() == {item["key"] for item in volume["items"]}
    mounted(files, volume["items"], tmp_path, volume["defaultMode"])
    there = Deployment(tmp_path)
    assert there.exists
    assert there.identities() == made.identities()
    assert there.authorities() == made.authorities()
    assert there.vouch("lender", ALICE.public_key, "desk", (), time.time()).count(".") == 2
    assert connect_options(there.broker_credentials)
    folder = next(
        one["mountPath"] for one in container["volumeMounts"] if one["name"] == "deployment"
    )
    assert f"--deployment={folder}" in container["args"]


def test_brokers_settings_are_read_and_submitters_stay_as_git_has_them(tmp_path: Path) -> None:
    _, container = broker_pod()
    settings = load(BrokerSettings, FOLDER / "base" / "broker.toml", {})
    assert settings.metrics == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    assert settings.replicas == 3
    file = SubmittersFile(tmp_path)
    file.path.write_text(f'[alice]\nkey = "{ALICE.public_key}"\njobs_max = 100\n')
    said = file.path.read_text()
    tmp_path.chmod(0o500)
    try:
        file.allow("alice", ALICE.public_key)
    finally:
        tmp_path.chmod(0o700)
    assert file.path.read_text() == said, "written anew, which a mounted ConfigMap refuses"


def test_nats_takes_the_charts_values_with_the_accounts(made: Deployment, tmp_path: Path) -> None:
    (values,) = read("nats/values.yaml")
    (folders, paths) = ({}, {})
    cluster, nats = values["config"]["cluster"], values["config"]["nats"]
    for name, folder in (
        (cluster["tls"]["secretName"], "nats-certs/cluster"),
        (nats["tls"]["secretName"], "nats-certs/nats"),
        ("nats-accounts", "nats-accounts"),
    ):
        folders[name] = tmp_path / folder
        folders[name].mkdir(parents=True)
        paths[name] = secret(made, name)
        for key, path in paths[name].items():
            (folders[name] / key).write_bytes(path.read_bytes())
    (tmp_path / "nats-config").mkdir()
    config = tmp_path / "nats-config" / "nats.conf"
    config.write_text(written(chart_config(values)).replace("/etc/", f"{tmp_path}/"))
    for number in range(cluster["replicas"]):
        env = {
            name: value.replace("$(POD_NAME)", f"nats-{number}").replace("/etc/", f"{tmp_path}/")
            for name, value in values["container"]["env"].items()
        }
        said = subprocess.run(
            [str(find_server()), "-t", "-c", str(config)],
            env={**os.environ, **env, "SERVER_NAME": f"nats-{number}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        certificate = paths["nats-routes"][f"nats-{number}.pem"]
        host = f"nats-{number}.nats-headless.lender.svc.cluster.local"
        assert certificate.parent.name == host, "routes are called by that name"
        assert env["ROUTE_ADVERTISE"] == f"{host}:6222", "as a certificate has it"


def chart_config(values: Manifest) -> Manifest:
    """What version 2.14.2 of the chart makes of those of its values that are said here.

    As its files/config/ have it: a block for each, with what is said in `merge` over it.
    """
    said = values["config"]
    cluster, nats, jetstream = said["cluster"], said["nats"], said["jetstream"]
    assert cluster["noAdvertise"]
    assert jetstream["memoryStore"]["enabled"], "who leads is kept there"
    domain = "nats-headless.lender.svc.cluster.local"
    tls, memory = nats["tls"], jetstream["memoryStore"]
    return {
        "server_name": "<< $SERVER_NAME >>",
        "port": 4222,
        "http_port": 8222,
        "tls": {f"{one}_file": f"/etc/nats-certs/nats/{tls[one]}" for one in ("cert", "key")},
        "cluster": {
            "name": "nats",
            "port": 6222,
            "no_advertise": True,
            "routes": [f"tls://nats-{n}.{domain}:6222" for n in range(cluster["replicas"])],
            "tls": cluster["tls"]["merge"],
            **cluster["merge"],
        },
        "jetstream": {
            "max_memory_store": f"<< {memory['maxSize']} >>" if memory["enabled"] else 0,
            "store_dir": "/etc/data",
            "max_file_store": f"<< {jetstream['fileStore']['maxSize']} >>",
            **jetstream["merge"],
        },
        "resolver": {"dir": "/etc/data/resolver", **said["resolver"]["merge"]},
        **said["merge"],
    }


def written(value: object) -> str:
    """A configuration as the chart writes it: JSON, `<< >>` without quotes, and includes."""
    if isinstance(value, dict):
        return "{\n" + "\n".join(_line(key, value[key]) for key in sorted(value)) + "\n}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str) and value.startswith("<<"):
        return value.removeprefix("<<").removesuffix(">>").strip()
    return json.dumps(value)


def _line(key: str, value: object) -> str:
    return f"include {value};" if key.endswith("$include") else f"{key}: {written(value)}"
