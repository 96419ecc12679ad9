"""Signs what this machine reports: results are known as this lender's, whoever passes them on."""

from hashlib import sha256

from lender.core.effects import SendReport
from lender.protocol.lease import Done
from lender.protocol.result_run import tasks_of
from lender.protocol.signature import Signer
from lender.protocol.signed_results import result_digests, signed_bytes


def signed_report(signer: Signer, effect: SendReport) -> Done:
    """Return the report with the lender's signature; one without results needs none."""
    report, given = effect.report, effect.given
    if not report.results:
        return report
    tasks, results = tasks_of(report.results), result_digests(report.results)
    digests = dict(zip(tasks, results, strict=True))
    spec_sha256 = sha256(given.spec).digest()
    signed = signed_bytes(spec_sha256, signer.public_key, given.lease, given.attempt, digests)
    return report.model_copy(update={"signature": signer.sign(signed)})
