"""What the broker decides, told in its log with the ids of what it is about."""

import logging

from broker.core.effects import Commit, Effect, FeedWork
from lender.protocol.streams import RESULTS
from lender.protocol.subjects import TERM_PREFIX

logger = logging.getLogger(__name__)


def tell(effect: Effect) -> None:
    """Log leases that are placed and records that are stored, at the level debug."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    match effect:
        case FeedWork():
            lease = effect.lease
            ids = {"job": lease.job, "attempt": lease.attempt, "lease": lease.lease}
            logger.debug("attempt %d of job %s is placed", lease.attempt, lease.job, extra=ids)
        case Commit():
            for record in effect.records:
                ids = {"job": named_job(record.subject)}
                logger.debug("to %s: %s", RESULTS, record.subject, extra=ids)
        case _:
            pass


def named_job(subject: str) -> str | None:
    """Return the job that a record of RESULTS is about; None for one about none."""
    tokens = subject.split(".")
    of_job = tokens[0] == "res" and len(tokens) > 2 and not subject.startswith(TERM_PREFIX)
    return tokens[2] if of_job else None
