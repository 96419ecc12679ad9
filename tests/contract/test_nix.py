"""The Nix modules, as Nix evaluates them: nothing of a unit stands twice, no secret gets into the
store, no port is opened, no grant is made."""

import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from nix_modules import BIN, ROOT, evaluated, needs_nix, nix, sources

from broker.service.settings import BrokerSettings
from lender.cli.checks import boot_line, kernel
from lender.cli.proposals import words
from lender.daemon.settings import DaemonSettings
from lender.link.embedded import MAX_PAYLOAD_BYTES
from lender.sandbox.runtimes import contained

pytestmark = needs_nix

Unit = dict[str, dict[str, list[str]]]


def shipped(place: str) -> Unit:
    """A unit of systemd/: section -> key -> its values in their order."""
    found: Unit = {}
    section = ""
    for line in (ROOT / "systemd" / place).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            full = f"{BIN}/{value}" if key.startswith("Exec") else value
            found[section].setdefault(key, []).append(full)
    return found


def listed(section: dict[str, Any]) -> dict[str, list[str]]:
    return {k: v if isinstance(v, list) else [v] for k, v in section.items()}


def of_nixos(unit: dict[str, Any], section: str = "Service") -> Unit:
    """A unit in NixOS' own options, as the file that it becomes."""
    asked = {
        **unit["unitConfig"],
        "Description": unit["description"],
        "After": " ".join(unit["after"]),
        "Wants": " ".join(unit["wants"]),
    }
    installed = {"Install": listed({"WantedBy": unit["wantedBy"]})} if unit["wantedBy"] else {}
    known = {key: value for key, value in asked.items() if value}
    return {"Unit": listed(known), section: listed(unit[f"{section.lower()}Config"]), **installed}


def of_home(unit: dict[str, Any]) -> Unit:
    return {name: listed(section) for name, section in unit.items() if section}


def system_unit(case: str, name: str) -> Unit:
    return of_nixos(evaluated(f"nixos.{case}")["systemd"]["services"][name])


def test_all_that_is_written_in_nix_is_nix() -> None:
    done = nix("--parse", *map(str, sources()))
    assert (done.returncode, len(sources()) > 20) == (0, True), done.stderr


def test_system_units_are_the_shipped_ones() -> None:
    lenderd = shipped("system/lenderd.service")
    tools = f"{BIN.removesuffix('-lender/bin')}-commands.nix:/usr"
    lenderd["Service"]["BindReadOnlyPaths"] = [tools]
    assert system_unit("plain", "lenderd") == lenderd
    del lenderd["Service"]["BindReadOnlyPaths"]
    lenderd["Service"]["MemoryMax"] = ["2G"]
    assert system_unit("changed", "lenderd") == lenderd
    broker = shipped("system/lender-broker.service")
    broker["Service"]["LoadCredential"] = ["lender-broker.creds:/run/secrets/lender-broker"]
    assert system_unit("broker", "lender-broker") == broker
    plain = evaluated("nixos.plain")["systemd"]
    assert of_nixos(plain["slices"]["lender"], "Slice") == shipped("lender.slice")
    agent = evaluated("nixos.fleet")["systemd"]["user"]["services"]["lender-agent"]
    assert of_nixos(agent) == shipped("user/lender-agent.service")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze (package systemd) is missing"
)
def test_systemd_has_nothing_to_say_against_what_is_added(tmp_path: Path) -> None:
    """The shipped units themselves: test_units.py."""
    unit = system_unit("fleet", "lenderd")
    lines = [
        line
        for section, keys in unit.items()
        for line in (f"[{section}]", *(f"{k}={one}" for k, many in keys.items() for one in many))
    ]
    text = "\n".join(lines).replace(BIN, str(Path(sys.executable).parent))
    (tmp_path / "lenderd.service").write_text(f"{text}\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--system", "--man=no", str(tmp_path / "lenderd.service")],
        env={**os.environ, "SYSTEMD_COLORS": "0"}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert (done.returncode, said, "BindReadOnlyPaths=" in text) == (0, [], True), done.stderr


def test_lenderd_takes_nothing_from_what_sandboxes_find() -> None:
    """The tree that is bound to /usr has an unshare, too: busybox's, which knows less."""
    assert contained._SEARCH.startswith("/run/current-system/sw/bin:")
    packages = evaluated("nixos.plain")["packages"]
    assert {"bubblewrap", "crun"} <= set(packages)


def test_a_users_units_are_the_shipped_ones() -> None:
    lenderd = shipped("user/lenderd.service")
    restart = {"X-Restart-Triggers": [f"{BIN.removesuffix('lender/bin')}lenderd.toml"]}
    lenderd["Unit"] |= restart
    units = evaluated("home.plain")["systemd"]["user"]
    assert of_home(units["services"]["lenderd"]) == lenderd
    assert of_home(units["slices"]["lender"]) == shipped("lender.slice")
    lenderd["Service"]["MemoryMax"] = ["2G"]
    changed = evaluated("home.changed")["systemd"]["user"]["services"]["lenderd"]
    assert of_home(changed) == lenderd
    agent = evaluated("home.agent")["systemd"]["user"]["services"]["lender-agent"]
    assert of_home(agent) == shipped("user/lender-agent.service")


@pytest.mark.parametrize(
    ("place", "attribute", "home"),
    [
        ("agent", "mac-home.plain", "/home/ann"),
        ("daemon", "darwin.plain", "/var/empty"),
    ],
)
def test_property_lists_are_the_shipped_ones(place: str, attribute: str, home: str) -> None:
    lender = plistlib.loads((ROOT / f"launchd/{place}/lender.lenderd.plist").read_bytes())
    started = f"{BIN}/lenderd"
    waiting = ["/bin/sh", "-c", f"wait && exec {started}"]  # for the store, in nix-darwin's words
    lender["ProgramArguments"] = [started] if place == "agent" else waiting
    for key in ("StandardOutPath", "StandardErrorPath"):
        lender[key] = lender[key].replace("~", home)
    launchd = evaluated(attribute)["launchd"]
    kind, options = ("agents", "config") if place == "agent" else ("daemons", "serviceConfig")
    assert launchd[kind]["lenderd"][options] == lender


def test_accounts_are_those_of_the_units() -> None:
    named = re.findall(
        r'^u (\S+) - "(.*)" (\S+)',
        (ROOT / "systemd/sysusers.d/lender.conf").read_text(),
        re.MULTILINE,
    )
    users = evaluated("nixos.plain")["users"]["users"] | evaluated("nixos.broker")["users"]["users"]
    assert [(n, u["description"], u["home"]) for n, u in users.items()] == named
    assert all(user["isSystemUser"] for user in users.values())
    mac = evaluated("darwin.plain")["users"]
    assert mac["users"]["_lender"]["shell"] == "/usr/bin/false"  # nobody can log in as it
    assert mac["knownUsers"] == ["_lender"]


def test_nothing_is_there_that_was_not_switched_on() -> None:
    nothing = evaluated("nixos.nothing")
    assert (nothing["files"], nothing["packages"], nothing["users"]["users"]) == ({}, [], {})
    assert nothing["systemd"] == {"services": {}, "slices": {}, "user": {"services": {}}}


def test_no_port_is_opened_but_by_the_word_for_it() -> None:
    opened = {name: one["firewall"]["allowedTCPPorts"] for name, one in evaluated("nixos").items()}
    assert opened.pop("deployment") == [4222]
    assert set(map(tuple, opened.values())) == {()}
    assert "ListenStream" not in json.dumps(evaluated("nixos"))  # no socket of systemd's either


def test_a_server_that_asks_nobody_is_not_opened_to_others() -> None:
    assert "deployment" in evaluated("nixos.open-nats")["broken"][0]
    assert evaluated("nixos.broker")["broken"] == []
    assert evaluated("nixos.deployment")["broken"] == []
    start = evaluated("nixos.deployment")["systemd"]["services"]["nats"]["serviceConfig"][
        "ExecStart"
    ]
    assert start.endswith("/bin/nats-server -c /var/lib/nats/server/server.conf")


def test_the_nats_server_keeps_what_it_acknowledged() -> None:
    nats = evaluated("nixos.broker")["services"]["nats"]
    assert (nats["enable"], nats["jetstream"], nats["host"]) == (True, True, "127.0.0.1")
    assert nats["settings"] == {
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"sync_interval": "always"},
    }


def test_secrets_are_handed_over_by_their_places() -> None:
    fleet = evaluated("nixos.fleet")
    unit = fleet["systemd"]["services"]["lenderd"]["serviceConfig"]
    assert unit["LoadCredential"] == [
        "lenderd.creds:/run/agenix/lenderd",
        "mqtt.creds:/run/agenix/mqtt",
    ]
    mqtt = fleet["files"]["lender/lenderd.toml"]["mqtt"]
    assert mqtt["credentials"] == "/run/credentials/lenderd.service/mqtt.creds"
    home = evaluated("home.secret")["systemd"]["user"]["services"]["lenderd"]
    assert home["Service"]["LoadCredential"] == "lenderd.creds:%t/agenix/lenderd"
    assert home["Unit"]["After"] == ["agenix.service", "sops-nix.service"]
    mac = evaluated("mac-home.secret")["files"]["lender/lenderd.toml"]
    assert mac["credentials"] == "/Users/ann/.config/agenix/lenderd"
    assert "full path" in evaluated("mac-home.variable")["broken"][0]
    assert "credentialsFile" in evaluated("nixos.broker-secret-in-settings")["broken"][0]


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("secret-as-path", "credentialsFile"),
        ("secret-in-store", "settings.credentials"),
        ("secret-of-mqtt", "mqtt.credentials"),
        ("secret-relative", "settings.credentials"),
        ("user-secret-as-path", "settings.credentials"),
        ("user-secret-relative", "credentialsFile"),
        ("user-secret-in-store", "settings.credentials"),
        ("no-such-option", "no option services.lender.grants"),
        ("endless-proposal", "alice.expires is not set"),
    ],
)
def test_what_would_leak_or_pass_unseen_is_refused(case: str, says: str) -> None:
    """A path of Nix that stands in a text is copied into the store, which everybody may read."""
    done = nix(
        "--eval",
        "--strict",
        "--json",
        str(ROOT / "tests/nix/evaluate.nix"),
        "-A",
        f"refused.{case}",
    )
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("attribute", "folder"),
    [("nixos.fleet", "lender"), ("home.secret", "lender"), ("darwin.fleet", "lender")],
)
def test_grants_are_proposed_and_never_made(attribute: str, folder: str) -> None:
    """What Nix writes lies below the configuration; grants are in the state folder."""
    files = evaluated(attribute)["files"]
    assert set(files) == {f"{folder}/lenderd.toml", f"{folder}/proposals/alice.toml"}
    assert files[f"{folder}/proposals/alice.toml"]["workload"] == "checksum"
    everything = json.dumps(evaluated(attribute))
    assert "lender grant" not in everything
    assert "/grants" not in everything


def test_settings_are_those_that_the_programs_know() -> None:
    files: list[dict[str, Any]] = [
        evaluated("headless-pi")["files"],
        evaluated("wsl.within")["files"],
    ]
    files += [
        one["files"] for name in ("nixos", "home", "darwin") for one in evaluated(name).values()
    ]
    read = [
        DaemonSettings(**one["lender/lenderd.toml"])
        for one in files
        if "lender/lenderd.toml" in one
    ]
    assert {settings.url for settings in read} == {"nats://127.0.0.1:4222", "tls://nats.lab:4222"}
    BrokerSettings(**evaluated("nixos.broker")["files"]["lender/broker.toml"])


def test_a_pi_gets_what_doctor_would_ask_for(tmp_path: Path) -> None:
    pi = evaluated("headless-pi")
    (tmp_path / "proc").mkdir()
    said = " ".join(check.mend for check in kernel.pressure(tmp_path))
    assert "psi=1" in said
    words = pi["boot"]["kernelParams"]
    assert set(words) == {*kernel._MEMORY_ON, "psi=1"}
    assert boot_line.mend(words, tmp_path).startswith(" ".join(words))
    assert pi["services"]["timesyncd"]["enable"] is True
    assert pi["files"]["lender/lenderd.toml"]["policy"] == {"defaults": "dedicated"}
    unit = of_nixos(pi["systemd"]["services"]["lenderd"])["Service"]
    assert unit["Delegate"] == ["cpu memory pids io"]
    assert (unit["Slice"], unit["MemoryMax"]) == (["lender.slice"], ["90%"])


def test_wsl_wants_the_module_of_wsl() -> None:
    assert "nixos-wsl" in evaluated("wsl.without")["broken"][0]
    assert evaluated("wsl.within")["broken"] == []


def test_a_clan_gives_each_machine_what_its_roles_say() -> None:
    whole = evaluated("clan.whole")
    attic, pi, desk = whole["attic"], whole["pi"], whole["desk"]
    assert set(attic["systemd"]["services"]) == {"lenderd", "lender-broker", "nats"}
    assert attic["files"]["lender/lenderd.toml"] == {"slots": 1, "url": "nats://127.0.0.1:4222"}
    assert (attic["broken"], attic["firewall"]["allowedTCPPorts"]) == ([], [4222])
    assert set(pi["systemd"]["services"]) == {"lenderd"}
    assert pi["files"]["lender/lenderd.toml"] == {"url": "nats://attic:4222"}
    assert pi["files"]["lender/proposals/alice.toml"]["workload"] == "checksum"
    unit = pi["systemd"]["services"]["lenderd"]["serviceConfig"]
    assert unit["LoadCredential"] == ["lenderd.creds:/run/secrets/vars/lender"]
    assert pi["firewall"]["allowedTCPPorts"] == []
    assert (desk["systemd"]["services"], desk["files"]) == ({}, {})
    assert desk["variables"] == {"LENDER_URL": "tls://nats.lab:4222"}
    assert (desk["packages"], attic["variables"]) == (
        ["lender"],
        {"LENDER_URL": "nats://127.0.0.1:4222"},
    )
    assert evaluated("clan.alone")["attic"]["broken"] == []
    example = evaluated("clan.example")
    assert [name for name, one in example.items() if one["broken"]] == []
    assert {name: [*one["systemd"]["services"]] for name, one in example.items()} == {
        "attic": ["lender-broker", "lenderd", "nats"],
        "pi": ["lenderd"],
        "desk": [],
    }
    for name in ("attic", "pi"):
        unit = example[name]["systemd"]["services"]["lenderd"]["serviceConfig"]
        assert unit["LoadCredential"] == ["lenderd.creds:/run/secrets/vars/lender"]
    assert "serverConfig" in evaluated("clan.unreachable")["attic"]["broken"][0]


def test_examples_are_configurations() -> None:
    examples = evaluated("examples")
    assert [name for name, one in examples.items() if one["broken"]] == []
    for name in ("agenix", "attic", "pi-shelf"):
        unit = examples[name]["systemd"]["services"]["lenderd"]["serviceConfig"]
        assert unit["LoadCredential"] == ["lenderd.creds:/run/agenix/lenderd"]
    for name in ("attic", "pi-shelf", "desk"):
        files = examples[name]["files"]
        assert files["lender/lenderd.toml"]["url"] == "tls://nats.example.org:4222"
        assert words(files["lender/proposals/alice.toml"])
        DaemonSettings(**files["lender/lenderd.toml"])
    assert "cgroup_memory=1" in examples["pi-shelf"]["boot"]["kernelParams"]
    assert "lenderd" in examples["mac"]["launchd"]["agents"]
    assert "lenderd" in examples["home-manager"]["systemd"]["user"]["services"]


def test_an_overlay_pins_by_revision_and_holds_nothing_of_the_product() -> None:
    flake = (ROOT / "nix/examples/owner-overlay/flake.nix").read_text()
    assert re.search(r'lender\.url = "git\+https://[^"]*[?]rev=[0-9a-f]{40}"', flake)
    for named in re.findall(r"\./[a-z/-]+\.nix", flake):
        assert (ROOT / "nix/examples/owner-overlay" / named).exists()
    for path in (ROOT / "nix").rglob("*.nix"):
        if "examples" not in path.parts:
            assert "example.org" not in path.read_text()


def test_the_flake_offers_what_people_look_for() -> None:
    flake = evaluated("names", "flake.nix"), evaluated("exported", "flake.nix")
    assert {"modules", "nixosModules", "darwinModules", "homeModules", "overlays"} <= set(flake[0])
    assert flake[1]["nixosModules"] == ["default", "headless-pi", "lender", "wsl"]
    assert flake[1]["darwinModules"] == flake[1]["homeModules"] == ["default", "lender"]
    assert set(evaluated("modules", "flake.nix")) == {"darwin", "homeManager", "nixos"}
    assert evaluated("clan", "flake.nix") == ["broker", "lender", "submitter"]
    assert evaluated("each", "flake.nix") == ["checks", "devShells", "formatter", "packages"]


def test_inputs_are_locked() -> None:
    nodes = json.loads((ROOT / "flake.lock").read_text())["nodes"]
    asked = set(
        re.findall(r"^    ([a-z-]+)(?:\.url)? = ", (ROOT / "flake.nix").read_text(), re.MULTILINE)
    )
    assert set(nodes["root"]["inputs"]) == asked == {"nixpkgs", "flake-parts"}
    assert nodes["flake-parts"]["inputs"] == {"nixpkgs-lib": ["nixpkgs"]}
    for name in asked:
        assert re.fullmatch("[0-9a-f]{40}", nodes[name]["locked"]["rev"])
        assert nodes[name]["locked"]["narHash"].startswith("sha256-")


def test_the_package_is_what_pyproject_and_the_locks_say() -> None:
    package = (ROOT / "nix/package.nix").read_text()
    sources = re.findall(r"^ +\.\./(\S+)$", package, re.MULTILINE)
    assert {"lender", "broker", "workloads", "systemd", "launchd", "setup.py"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    version, digest = re.findall(r'(?:version|sha256) = "([0-9a-f.]+)";', package)
    assert (
        f"nkeys=={version} \\\n    --hash=sha256:{digest}\n"
        in (ROOT / "locks/lender.txt").read_text()
    )
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split("[^a-z-]", one)[0] for one in asked]
    assert [name for name in names if f"ps.{name}" not in package] == []
