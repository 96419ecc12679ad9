"""What deploy/kubernetes brings into a cluster: it fits the cluster's schemas, holds no secret, has
no privilege, and lets nothing through to NATS but clients."""

import re

import jsonschema
import pytest
from argo_fields import faults
from manifests import (
    NAME,
    VERSIONS,
    Manifest,
    Outside,
    Pod,
    Schemas,
    build,
    containers,
    of_kind,
    reaches,
    read,
)

BROKER = Pod({"app.kubernetes.io/name": "lender-broker"}, {NAME: "lender"})
NATS = Pod({"app.kubernetes.io/name": "nats"}, {NAME: "lender"})
BYSTANDER = Pod({"app.kubernetes.io/name": "other"}, {NAME: "lender"})
STRANGER = Pod({"app.kubernetes.io/name": "lender-broker"}, {NAME: "elsewhere"})
MONITORING = Pod({}, {NAME: "monitoring", "lender/monitoring": "true"})
LENDER = Outside("100.64.0.7")
INTERNET = Outside("203.0.113.9")


@pytest.fixture(scope="module", params=["k3d", "production"])
def built(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(request.param)


@pytest.fixture(scope="module")
def production() -> list[Manifest]:
    return build("production")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_would_take_all_of_it(built: list[Manifest], version: str) -> None:
    schemas = Schemas(version)
    for manifest in built:
        schemas.check(manifest)
    (broker,) = of_kind(built, "Deployment")
    with pytest.raises(jsonschema.ValidationError):
        schemas.check({**broker, "spec": {**broker["spec"], "replica": 2}})


def test_every_container_has_nothing_that_it_does_not_need(built: list[Manifest]) -> None:
    found = [one for manifest in built for one in containers(manifest)]
    assert found
    for pod, container in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        own = container["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert all(mount["readOnly"] for mount in container["volumeMounts"])
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_dev_pcs_are_no_nodes_and_the_cluster_is_not_theirs(built: list[Manifest]) -> None:
    """Nothing runs on every node, leaves its namespace, asks the cluster's API, or lends."""
    kinds = {one["kind"] for one in built}
    assert kinds == {
        *("Namespace", "ConfigMap", "Deployment", "Service"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    }
    (namespace,) = of_kind(built, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(
        one["metadata"].get("namespace") == "lender" for one in built if one is not namespace
    )
    for manifest in built:
        for pod, container in containers(manifest):
            assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
            assert all("hostPort" not in port for port in container["ports"])
            assert all({"secret", "configMap"} & volume.keys() for volume in pod["volumes"])
            assert container["args"][0] == "serve"
    assert all(
        one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in of_kind(built, "Service")
    )


def test_what_selects_pods_selects_the_brokers(built: list[Manifest]) -> None:
    (deployment,) = of_kind(built, "Deployment")
    (service,) = of_kind(built, "Service")
    (budget,) = of_kind(built, "PodDisruptionBudget")
    wanted = {"app.kubernetes.io/name": "lender-broker"}
    assert deployment["spec"]["selector"]["matchLabels"] == wanted
    assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"] == wanted
    assert budget["spec"]["selector"]["matchLabels"] == wanted
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]
    (pod, container) = next(containers(deployment))
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in named
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in named
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}
    made = {one["metadata"]["name"] for one in of_kind(built, "ConfigMap")}
    asked = {one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one}
    assert asked == made


def test_nothing_reaches_nats_but_clients_at_their_port(built: list[Manifest]) -> None:
    policies = of_kind(built, "NetworkPolicy")
    assert reaches(policies, BROKER, NATS, 4222)
    assert reaches(policies, NATS, NATS, 6222)
    for one in (BROKER, BYSTANDER, STRANGER, MONITORING, LENDER, INTERNET):
        for port in (22, 1883, 6222, 7422, 7777, 8080, 8222, 65432):
            assert not reaches(policies, one, NATS, port), (one, port)
    for one in (BYSTANDER, STRANGER, MONITORING, INTERNET):
        assert not reaches(policies, one, NATS, 4222), one
    assert not reaches(policies, NATS, NATS, 8222)


def test_brokers_call_nats_alone_and_are_asked_for_metrics_alone(built: list[Manifest]) -> None:
    policies = of_kind(built, "NetworkPolicy")
    assert reaches(policies, MONITORING, BROKER, 9463)
    for one in (BROKER, BYSTANDER, STRANGER, NATS, LENDER, INTERNET):
        assert not reaches(policies, one, BROKER, 9463), one
    for other in (BYSTANDER, STRANGER, MONITORING, LENDER, INTERNET):
        for port in (80, 443, 4222, 6443, 10250):
            assert not reaches(policies, BROKER, other, port), (other, port)
            assert not reaches(policies, NATS, other, port), (other, port)


def test_the_overlay_network_reaches_nats_where_it_is_meant_to(production: list[Manifest]) -> None:
    assert reaches(of_kind(production, "NetworkPolicy"), LENDER, NATS, 4222)
    assert not reaches(of_kind(build("k3d"), "NetworkPolicy"), LENDER, NATS, 4222)


def test_images_are_named_by_what_is_in_them(production: list[Manifest]) -> None:
    for manifest in production:
        for _, container in containers(manifest):
            assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", container["image"])


@pytest.mark.parametrize("file", ["project", "applications"])
def test_argo_knows_each_field(file: str) -> None:
    documents = read(f"argocd/{file}.yaml")
    assert [faults(one) for one in documents] == [[] for _ in documents]
    (first, *_) = documents
    wrong = {**first, "spec": {**first["spec"], "destinatoin": {}, "project": 1, "sourceRepos": {}}}
    assert ".spec.destinatoin is unknown" in faults(wrong)
    assert len(faults(wrong)) == 3


def test_argo_may_do_what_is_built_and_nothing_of_the_clusters(production: list[Manifest]) -> None:
    (project,) = read("argocd/project.yaml")
    spec = project["spec"]
    allowed = {(one["group"], one["kind"]) for one in spec["namespaceResourceWhitelist"]}
    assert spec["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace"}]
    assert [one["namespace"] for one in spec["destinations"]] == ["lender"]
    for one in production:
        group = one["apiVersion"].rpartition("/")[0]
        assert one["kind"] == "Namespace" or (group, one["kind"]) in allowed
    chart = {
        ("apps", "StatefulSet"),
        ("", "ConfigMap"),
        ("", "Service"),
        ("policy", "PodDisruptionBudget"),
    }
    assert chart <= allowed
    assert not {"Secret", "Role", "RoleBinding", "ServiceAccount", "*"} & {
        kind for _, kind in allowed
    }
    for application in read("argocd/applications.yaml"):
        own = application["spec"]
        assert own["project"] == project["metadata"]["name"]
        assert own["destination"] in spec["destinations"]
        sources = own.get("sources") or [own["source"]]
        assert {one["repoURL"] for one in sources} <= set(spec["sourceRepos"])
