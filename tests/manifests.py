"""Kubernetes manifests as a cluster would take them: built, held against its schemas, and asked
what their network policies let through."""

import functools
import ipaddress
import json
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
FETCHED = ROOT / ".tools" / "manifests"

VERSIONS = ("1.33", "1.37")
"""Of Kubernetes: the oldest and the newest that the manifests are to fit."""

Manifest = dict[str, Any]


def build(overlay: str) -> list[Manifest]:
    """What `kustomize build` makes of an overlay."""
    found = sorted(FETCHED.glob("kustomize-*"))
    if not found:
        pytest.skip("kustomize is missing: .ci/manifests fetches it")
    command = [str(found[-1]), "build", str(FOLDER / "overlays" / overlay)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(yaml.safe_load_all(made.stdout))


def read(path: str) -> list[Manifest]:
    """The documents of a file below deploy/kubernetes."""
    return list(yaml.safe_load_all((FOLDER / path).read_text()))


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


class Schemas:
    """Kubernetes' own, of one version; strict: an unknown field is a fault."""

    def __init__(self, version: str) -> None:
        found = sorted(FETCHED.glob("kubernetes_validate-*.whl"))
        if not found:
            pytest.skip("Kubernetes' schemas are missing: .ci/manifests fetches them")
        self._files = zipfile.ZipFile(found[-1])
        self._folder = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict"
        definitions = Resource.from_contents(self._read("_definitions.json"))
        self._registry: Registry[Any] = definitions @ Registry()

    def check(self, manifest: Manifest) -> None:
        """Raise jsonschema.ValidationError for one that a cluster would refuse, or KeyError."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        name = "-".join(filter(None, (manifest["kind"].lower(), group.split(".")[0], version)))
        schema = self._read(f"{name}.json")
        jsonschema.Draft202012Validator(schema, registry=self._registry).validate(manifest)

    @functools.cache  # noqa: B019 - one for the tests, and gone with them
    def _read(self, name: str) -> Manifest:
        found: Manifest = json.loads(self._files.read(f"{self._folder}/{name}"))
        return found


def containers(manifest: Manifest) -> Iterator[tuple[Manifest, Manifest]]:
    """Each container of a workload, with the pod's own specification."""
    template = manifest.get("spec", {}).get("template")
    if isinstance(template, dict):
        pod = template["spec"]
        for field in ("initContainers", "containers", "ephemeralContainers"):
            yield from ((pod, one) for one in pod.get(field, ()))


class Pod(NamedTuple):
    """One end of a connection within the cluster."""

    labels: Mapping[str, str]
    namespace: Mapping[str, str]


class Outside(NamedTuple):
    """One that is no pod."""

    address: str


NAME = "kubernetes.io/metadata.name"


def reaches(policies: list[Manifest], one: Pod | Outside, other: Pod | Outside, port: int) -> bool:
    """Whether network policies of the namespace `lender` let TCP through, at both of its ends.

    As https://kubernetes.io/docs/concepts/services-networking/network-policies/ has it: a pod that
    no policy of a direction selects is open; else what any of them lets through, passes.
    """
    return _lets(policies, other, one, port, "Ingress", "from") and _lets(
        policies, one, other, port, "Egress", "to"
    )


def _lets(
    policies: list[Manifest],
    mine: Pod | Outside,
    peer: Pod | Outside,
    port: int,
    direction: str,
    peers: str,
) -> bool:
    if isinstance(mine, Outside) or mine.namespace.get(NAME) != "lender":
        return True
    selecting = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"]
        and _fits(one["spec"]["podSelector"], mine.labels)
    ]
    if not selecting:
        return True
    return any(
        _names(rule.get("ports"), port) and _meets(rule.get(peers), peer)
        for spec in selecting
        for rule in spec.get(direction.lower(), ())
    )


def _names(ports: list[Manifest] | None, port: int) -> bool:
    if not ports:
        return True
    return any(one.get("protocol", "TCP") == "TCP" and one.get("port") == port for one in ports)


def _meets(peers: list[Manifest] | None, other: Pod | Outside) -> bool:
    if not peers:
        return True
    for peer in peers:
        if isinstance(other, Outside):
            block = peer.get("ipBlock")
            if block and ipaddress.ip_address(other.address) in ipaddress.ip_network(block["cidr"]):
                assert "except" not in block, "not understood here"
                return True
        elif "ipBlock" not in peer:
            namespace = peer.get("namespaceSelector", {"matchLabels": {NAME: "lender"}})
            if _fits(namespace, other.namespace) and _fits(
                peer.get("podSelector", {}), other.labels
            ):
                return True
    return False


def _fits(selector: Manifest, labels: Mapping[str, str]) -> bool:
    assert not set(selector) - {"matchLabels"}, "not understood here"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
