"""What lenderd reports is signed for the lease that it was given."""

from hashlib import sha256

from core_world import ALICE, Bench, make_lease, the

from lender.core.effects import SendReport
from lender.daemon.result_signing import signed_report
from lender.protocol.result import ReportProof
from lender.protocol.signature import Signer, seed_from_entropy
from lender.protocol.signed_results import check_results

LENDER = Signer(seed_from_entropy(bytes(32)))


def test_a_report_is_signed_for_its_lease() -> None:
    bench = Bench().ready()
    lease = make_lease(attempt=3)
    bench.run(lease)
    report = signed_report(LENDER, the(SendReport, bench.end(0)))
    assert report.signature is not None
    digest = sha256(lease.spec).digest()
    proof = ReportProof(signature=report.signature)
    key = LENDER.public_key
    assert check_results(digest, key, lease.lease, 3, report.results, proof) == {0}


def test_one_without_results_is_left_as_it_is() -> None:
    bench = Bench().ready()
    effect = the(SendReport, bench.deliver(make_lease(signer=LENDER)))
    assert effect.report.outcome == "refused"
    assert signed_report(ALICE, effect) is effect.report
