"""Classes: disjoint work queues, made from what separates machines.

A class names pool, runtime, architecture and GPU, and whose work of which workload it is, since
that is what an owner's grant names: a lender that pulls only the classes of its grants never
takes what its owner has not allowed (docs/decisions/0003-classes.md). Python's byte code belongs
to one minor version, so that the runtime's part of a class names it: `python311`.
"""

import re
from typing import NamedTuple, Self

from pydantic import TypeAdapter, ValidationError

from lender.protocol.errors import ProtocolError
from lender.protocol.ids import PoolName, PublicKey, WorkloadName
from lender.protocol.job import Arch, Gpu, JobSpec, PythonVersion, Runtime

_SEPARATOR = "_"
_OWN = "assign_"
_PARTS_COUNT = 6
_PYTHON = re.compile(r"python(3)([0-9]+)")
_PARTS = TypeAdapter(
    tuple[PoolName, Runtime, Arch, Gpu, PublicKey, WorkloadName, PythonVersion | None]
)


def own_queue(lender: str) -> str:
    """Return the queue of work that one lender is to have, of whichever class: no class itself."""
    return f"{_OWN}{lender}"


def is_own_queue(token: str) -> bool:
    """Tell whether a queue is some lender's own."""
    return token.startswith(_OWN) and token.count(_SEPARATOR) == 1


class Whose(NamedTuple):
    """Whose work of which workload a class has, and where it belongs."""

    pool: str
    submitter: str
    workload: str


def whose(token: str) -> Whose | None:
    """Return what a class says of people, as far as it has the parts of one.

    It costs a hundredth of `WorkClass.parse`: offers list hundreds of classes, twice a second.
    """
    parts = token.split(_SEPARATOR)
    return Whose(parts[0], *parts[4:]) if len(parts) == _PARTS_COUNT else None


class WorkClass(NamedTuple):
    """The parts of a class; none may contain the separator `_`.

    `python` is the version that a python class needs, such as `3.11`, and None for all others.
    """

    pool: str
    runtime: Runtime
    arch: Arch
    gpu: Gpu
    submitter: str
    workload: str
    python: str | None = None

    @property
    def token(self) -> str:
        """The class as one subject token and consumer name."""
        runtime = self.runtime + (self.python or "").replace(".", "")
        parts = (self.pool, runtime, self.arch, self.gpu, self.submitter, self.workload)
        return _SEPARATOR.join(parts).replace("_x86_64_", "_x8664_")

    @classmethod
    def of(cls, spec: JobSpec) -> Self:
        """Return the class that a job's tasks are queued in."""
        requires = spec.requires
        return cls(
            requires.pool,
            spec.runtime,
            requires.arch,
            requires.gpu,
            spec.submitter,
            spec.workload,
            requires.python,
        )

    @classmethod
    def parse(cls, token: str) -> Self:
        """Return the class that `token` names.

        Raises:
            ProtocolError: it names none.
        """
        parts, python = token.split(_SEPARATOR), None
        parts[2:3] = ["x86_64" if part == "x8664" else part for part in parts[2:3]]
        if found := _PYTHON.fullmatch("".join(parts[1:2])):
            parts[1], python = "python", ".".join(found.groups())
        try:
            one = cls(*_PARTS.validate_python((*parts, python)))
        except ValidationError as error:
            raise ProtocolError("class", f"not a class: {token[:120]!r}") from error
        if one.runtime == "python" and one.python is None:
            raise ProtocolError("class", f"names no version of Python: {token[:120]!r}")
        return one
