"""Byte code belongs to one version of Python, so jobs and machines meet by version."""

from dataclasses import replace

import pytest
from core_world import (
    CATALOGUE,
    GIB,
    MACHINE,
    START,
    class_of,
    make_config,
    make_grant,
    make_lease,
    make_spec,
)

from lender.core.admission import CatalogueEntry, Plan, Refused, Rules, admit
from lender.core.consent import Consent
from lender.core.events import Capabilities
from lender.core.offering import class_tokens
from lender.protocol.classes import WorkClass
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec

WORKLOADS = CATALOGUE | {"python": CatalogueEntry("python")}
PYTHON_MACHINE = replace(MACHINE, runtimes=MACHINE.runtimes | {"python"}, python="3.11")


def python_spec(version: str = "3.11") -> JobSpec:
    return make_spec(workload="python", runtime="python", requires={"python": version})


@pytest.mark.parametrize("version", ["3.0", "3.1", "3.9", "3.11", "3.13", "3.99"])
def test_a_python_class_names_its_version(version: str) -> None:
    spec = python_spec(version)
    token = WorkClass.of(spec).token
    assert f"_python{version.replace('.', '')}_" in token
    assert WorkClass.parse(token) == WorkClass.of(spec)
    assert WorkClass.parse(token).python == version


@pytest.mark.parametrize(
    "part", ["python", "python2", "python3", "python3011", "python311x", "wasm311"]
)
def test_a_part_that_names_no_version_makes_no_class(part: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        WorkClass.parse(class_of().replace("_wasm_", f"_{part}_"))
    assert caught.value.field == "class"


def test_versions_have_queues_of_their_own() -> None:
    tokens = {class_of(python_spec(version)) for version in ("3.1", "3.11", "3.12", "3.2")}
    assert len(tokens) == 4


def test_a_machine_offers_the_version_that_it_runs() -> None:
    config = make_config(workloads=WORKLOADS)
    grants = [make_grant(), make_grant("G-2", workload="python")]
    tokens = class_tokens(config, PYTHON_MACHINE, grants)
    assert class_of(python_spec()) in tokens
    assert class_of(python_spec("3.12")) not in tokens
    assert {WorkClass.parse(one).python for one in tokens} == {None, "3.11"}
    assert not any("python" in one for one in class_tokens(config, MACHINE, grants))


def verdict(spec: JobSpec, machine: Capabilities) -> Plan | Refused:
    grant = make_grant(workload="python")
    rules = Rules(Consent((grant,)), machine, WORKLOADS, slots_total=4, memory_free_bytes=4 * GIB)
    return admit(START, make_lease(spec), class_of(spec), rules)


def test_a_function_for_another_version_is_refused() -> None:
    assert isinstance(verdict(python_spec(), PYTHON_MACHINE), Plan)
    refused = verdict(python_spec("3.12"), PYTHON_MACHINE)
    assert isinstance(refused, Refused)
    assert refused.reason == "the job needs Python 3.12, this machine runs 3.11"
