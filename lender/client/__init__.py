"""Submitting to lender from Python: `async with Client() as client: ...`.

async with Client() as client:
    job = await client.submit(["sha256sum", "file.bin"], inputs=["file.bin"])
    print((await job.result()).value.decode())
"""

from lender.client.blocking import BlockingClient, BlockingFunctionJob, BlockingJob
from lender.client.catalogue import Catalogue
from lender.client.client import Client
from lender.client.collector import TaskRecord
from lender.client.contents import Transfer
from lender.client.errors import (
    Cancelled,
    ClientError,
    ContentFault,
    Expired,
    Forged,
    JobEnded,
    JobFailed,
    JobIdTaken,
    KeyFault,
    LedgerFull,
    NoSuchJob,
    NotAdmitted,
    Rejected,
    TaskFailed,
    Unreachable,
    UntrustedResult,
    UntrustedValue,
    error_of,
)
from lender.client.executor import LenderExecutor, RemoteError, RemoteTraceback
from lender.client.functions import FunctionJob
from lender.client.job import Job, JobResult
from lender.client.log_pieces import LogPiece
from lender.client.specs import Content, JobRequest, inputs_by_name
from lender.client.workload import CatalogueError, Workload
from lender.protocol.job import After, Array, Limits, Requires, Verify
from lender.protocol.query import JobStatus
from lender.protocol.result import TaskResult, Terminal

__all__ = [
    "After",
    "Array",
    "BlockingClient",
    "BlockingFunctionJob",
    "BlockingJob",
    "Cancelled",
    "Catalogue",
    "CatalogueError",
    "Client",
    "ClientError",
    "Content",
    "ContentFault",
    "Expired",
    "Forged",
    "FunctionJob",
    "Job",
    "JobEnded",
    "JobFailed",
    "JobIdTaken",
    "JobRequest",
    "JobResult",
    "JobStatus",
    "KeyFault",
    "LedgerFull",
    "LenderExecutor",
    "Limits",
    "LogPiece",
    "NoSuchJob",
    "NotAdmitted",
    "Rejected",
    "RemoteError",
    "RemoteTraceback",
    "Requires",
    "TaskFailed",
    "TaskRecord",
    "TaskResult",
    "Terminal",
    "Transfer",
    "Unreachable",
    "UntrustedResult",
    "UntrustedValue",
    "Verify",
    "Workload",
    "error_of",
    "inputs_by_name",
]
