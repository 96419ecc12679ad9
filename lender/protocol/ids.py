"""Names that people and machines give to things, and the patterns they must match.

A submitter or a lender is known by its public nkey of type user: `U`, then 55 base32 characters
(NATS nkeys). Ids stand in subjects as single tokens, so none may hold `.`, `*`, `>` or a space.
"""

import re
from typing import Annotated

from pydantic import StringConstraints

from lender.protocol.errors import ProtocolError

PUBLIC_KEY_PATTERN = r"^U[A-Z2-7]{55}$"
JOB_ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"
LEASE_ID_PATTERN = r"^[A-Za-z0-9_-]{22}$"
POOL_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
WORKLOAD_PATTERN = r"^[a-z][a-z0-9-]{0,31}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
LABEL_PATTERN = r"^[a-z0-9][a-z0-9._:/-]{0,62}$"

PublicKey = Annotated[str, StringConstraints(pattern=PUBLIC_KEY_PATTERN)]
JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]
LeaseId = Annotated[str, StringConstraints(pattern=LEASE_ID_PATTERN)]
PoolName = Annotated[str, StringConstraints(pattern=POOL_PATTERN)]
WorkloadName = Annotated[str, StringConstraints(pattern=WORKLOAD_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]
Label = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
"""What a machine's owner calls it, for submitters to ask for: `ssd`, `site:berlin`."""

_JOB_ID = re.compile(JOB_ID_PATTERN)


def is_job_id(token: str) -> bool:
    """Tell whether a job may be called so."""
    return _JOB_ID.fullmatch(token) is not None


def check_job_id(token: str) -> str:
    """Return `token` if it is a job id.

    Raises:
        ProtocolError: it is not; the field is `subject`.
    """
    if not is_job_id(token):
        raise ProtocolError("subject", "a job id is 8 to 64 characters of A-Z a-z 0-9 _ -")
    return token


_TASK_NAME = re.compile(r"(?P<job>[A-Za-z0-9_-]{8,56})-(?P<task>0|[1-9][0-9]{0,6})")


def task_name(job: str, task: int) -> str:
    """Return how a task of an array is called where a job's id is asked for.

    Of jobs that were submitted together, as tasks of one array, it is the id of each.
    """
    return f"{job}-{task}"


def task_named(name: str) -> tuple[str, int] | None:
    """Return the array and the index that a name may mean; None where it can't be a task's.

    It may be a job's own id as well, and then means that: whoever looks it up asks for that first.
    """
    found = _TASK_NAME.fullmatch(name)
    return (found["job"], int(found["task"])) if found else None
