"""Whose results count: what lenders have signed, held against the keys that a submitter trusts."""

from collections.abc import Iterable, Sequence

from lender.client.errors import KeyFault, UntrustedResult
from lender.client.records import Record
from lender.protocol.errors import ProtocolError
from lender.protocol.job import JobSpec
from lender.protocol.result import TaskResult, Terminal
from lender.protocol.result_run import ResultRun, tasks_of
from lender.protocol.signature import check_public_key
from lender.protocol.signed_results import check_results

_NONE: frozenset[int] = frozenset()


class Trust:
    """Looks at each record of a job before anything of it is believed.

    Without lenders to trust a signature is checked where there is one: it shows whose the result
    is to who knows that key by other means. Who writes the records could as well leave it out, or
    sign with a key of their own; against that, name the lenders. A sealed job has named them.

    Attributes:
        lenders: whom to trust; None: any.
    """

    def __init__(self, lenders: Iterable[str] | None = None) -> None:
        """Trust these public keys alone; None: any lender, and results without a signature.

        Raises:
            KeyFault: one of them is no public key.
        """
        try:
            self.lenders = None if lenders is None else frozenset(map(check_public_key, lenders))
        except ProtocolError as error:
            raise KeyFault("a trusted lender has no such key", error.reason) from error

    def check(self, spec: JobSpec, spec_sha256: bytes, record: Record) -> frozenset[int]:
        """Return the tasks whose results in the record their lender has signed.

        Raises:
            UntrustedResult: something in it was changed, or is nobody's whom we trust.
        """
        results = _results_of(record)
        try:
            signed = _signed(spec_sha256, record, results)
        except ProtocolError as error:
            raise UntrustedResult(spec.id, record.lender, error.reason) from error
        trusted = spec.sealed_to if self.lenders is None else self.lenders
        if self.lenders is None and not trusted:
            return signed
        if results and record.lender not in trusted:
            raise UntrustedResult(spec.id, record.lender, "it is none of those that you trust")
        for task in tasks_of(results):
            if task not in signed:
                raise UntrustedResult(spec.id, record.lender, f"task {task} is not signed")
        if isinstance(record, Terminal) and record.state == "succeeded":
            there = record.tasks_succeeded if spec.array else len(results)
            if there != spec.task_count:
                raise UntrustedResult(spec.id, None, "a success without the results of all tasks")
        return signed


def _results_of(record: Record) -> Sequence[TaskResult]:
    """Return what a lender has to answer for in a record."""
    if isinstance(record, Terminal):
        results: Sequence[TaskResult] = () if record.result is None else (record.result,)
    else:
        results = record.results
    if isinstance(results, ResultRun):
        return results
    # That a task was cancelled is the broker's to say, as of a whole job.
    return [one for one in results if not _is_taken_back(one)]


def _is_taken_back(result: TaskResult) -> bool:
    return result.cancelled and not (result.value or result.value_blob or result.outputs)


def _signed(spec_sha256: bytes, record: Record, results: Sequence[TaskResult]) -> frozenset[int]:
    if record.proof is None:
        return _NONE
    if record.lender is None or record.lease is None or record.attempt is None:
        raise ProtocolError("proof", "it does not say what was signed")
    return check_results(
        spec_sha256, record.lender, record.lease, record.attempt, results, record.proof
    )
