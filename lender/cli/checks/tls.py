"""TLS as it is met: who vouches for the server, under which name, and for how long."""

import hashlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from lender.cli.checks.check import Check
from lender.cli.words import printable
from lender.link.credentials import trusting
from lender.link.probe import Line, Met, ProbeError

EXPIRES_SOON_S = 30 * 86_400.0

_DAY_S = 86_400.0
# X509_V_ERR_* of OpenSSL (x509_vfy.h).
_NOT_YET, _EXPIRED, _WRONG_NAME = 9, 10, (62, 64)
_RENEW = "its operator renews it: lender-broker rotate --tls"


def handshake(line: Line, ca: Path | None) -> Iterator[Check]:
    """Go on by TLS; a blocker where nobody vouches for the server, and then nothing was said.

    Raises:
        CredentialsError: the file can't be used.
    """
    # Those of this machine count only where nobody is named.
    context = ssl.create_default_context() if ca is None else trusting(ca)
    try:
        met = line.secure(context)
    except ssl.SSLCertVerificationError as error:
        yield _refused(line, ca, error)
    except ProbeError as error:
        mend = f"openssl s_client -connect {line.place}; ask its operator"
        yield Check("tls", "blocker", f"no TLS with {line.place}: {error}", mend)
    else:
        yield from _vouched(met, ca, time.time())


def authorities(ca: Path) -> Iterator[tuple[str, float]]:
    """Return of each certificate in a file its SHA-256, which people compare, and when it ends.

    Raises:
        CredentialsError: it can't be used.
    """
    context = trusting(ca)
    encoded = context.get_ca_certs(binary_form=True)
    for one, known in zip(encoded, context.get_ca_certs(), strict=True):
        ends_at = ssl.cert_time_to_seconds(str(known["notAfter"]))
        yield hashlib.sha256(one).hexdigest(), ends_at


def _vouched(met: Met, ca: Path | None, now: float) -> Iterator[Check]:
    by = "an authority of this machine" if ca is None else str(ca)
    text = f"{met.protocol}; {by} vouches for it; certificate {_short(met.encoded)}"
    yield Check("tls", "ok", text)
    left_s = ssl.cert_time_to_seconds(str(met.certificate["notAfter"])) - now
    days = f"its certificate ends in {left_s / _DAY_S:.0f} days"
    if left_s < EXPIRES_SOON_S:
        yield Check("tls.expiry", "warning", f"{days}: then nobody gets in", _RENEW)
    else:
        yield Check("tls.expiry", "ok", days)


def _refused(line: Line, ca: Path | None, error: ssl.SSLCertVerificationError) -> Check:
    host, reason = line.place.host, printable(error.verify_message)
    if error.verify_code == _EXPIRED:
        text = f"the certificate of {line.place} has ended, or this machine's clock is ahead"
        return Check("tls", "blocker", text, f"date; if that is right, {_RENEW}")
    if error.verify_code == _NOT_YET:
        text = f"the certificate of {line.place} holds not yet, or this machine's clock is behind"
        return Check("tls", "blocker", text, "date; set the clock: timedatectl set-ntp true")
    if error.verify_code in _WRONG_NAME:
        text = f"the certificate is not for the name {host} ({reason})"
        mend = f"use a name that it is for, or: lender-broker rotate --tls --host {host}"
        return Check("tls", "blocker", text, mend)
    by = "nobody whom this machine trusts" if ca is None else f"nobody in {ca}"
    text = f"{by} vouches for {line.place} ({reason})"
    mend = "get ca.pem from its operator by a way that you trust, and name it: --ca ca.pem"
    return Check("tls", "blocker", text, mend)


def _short(encoded: bytes) -> str:
    return f"SHA256:{hashlib.sha256(encoded).hexdigest()[:16]}"
