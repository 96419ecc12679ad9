"""Argo CD's fields that we use, with their kinds: no registry that CI asks has its definitions.

An unknown field is a fault, since a cluster would drop it unseen. All of them were found in Argo
CD's own definitions by hand: docs/decisions/0037.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Shape = type | list[Any] | Mapping[str, Any]
"""A kind of value, a list of one shape, or an object of these fields."""

_KIND = {"group": str, "kind": str}
_DESTINATION = {"server": str, "namespace": str}
_SOURCE = {
    "repoURL": str,
    "targetRevision": str,
    "path": str,
    "chart": str,
    "ref": str,
    "helm": {"releaseName": str, "valueFiles": [str]},
}
_SPECS: Mapping[str, Mapping[str, Shape]] = {
    "AppProject": {
        "description": str,
        "sourceRepos": [str],
        "destinations": [_DESTINATION],
        "clusterResourceWhitelist": [_KIND],
        "namespaceResourceWhitelist": [_KIND],
        "orphanedResources": {"warn": bool, "ignore": [_KIND]},
    },
    "Application": {
        "project": str,
        "source": _SOURCE,
        "sources": [_SOURCE],
        "destination": _DESTINATION,
        "syncPolicy": {"automated": {"prune": bool, "selfHeal": bool}, "syncOptions": [str]},
    },
}


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """Say what Argo CD would not know, or not take, of one of its resources."""
    shape = {
        "apiVersion": str,
        "kind": str,
        "metadata": {"name": str, "namespace": str},
        "spec": _SPECS[manifest["kind"]],
    }
    wrong = [] if manifest["apiVersion"] == "argoproj.io/v1alpha1" else ["apiVersion"]
    return [*wrong, *_faults(manifest, shape, "")]


def _faults(value: object, shape: Shape, place: str) -> Iterator[str]:
    if isinstance(shape, type):
        if type(value) is not shape:
            yield f"{place} is no {shape.__name__}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for one in value:
            yield from _faults(one, shape[0], f"{place}[]")
    elif not isinstance(value, dict):
        yield f"{place} has no fields"
    else:
        for name, one in value.items():
            if name in shape:
                yield from _faults(one, shape[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is unknown"
