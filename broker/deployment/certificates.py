"""Certificates for a server's TLS, by an authority of the fleet's own (X.509, RFC 5280)."""

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.deployment.contents import Certificates

VALID = dt.timedelta(days=3650)
"""A fleet at home is not to stop one day for want of a new one."""

_EARLIER = dt.timedelta(days=1)
"""Clocks of small machines may be behind."""


def make(fleet: str, hosts: Sequence[str], now: float) -> Certificates:
    """Return an authority of the fleet's own, and a server's certificate by it.

    Args:
        fleet: its name.
        hosts: names and addresses by which clients know the server.
        now: seconds since the epoch.
    """
    today = dt.datetime.fromtimestamp(now, dt.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = _name(f"{fleet} authority"), _name(f"{fleet} server")
    authority = (
        _begin(issuer, issuer, authority_key, today)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = _server(subject, hosts, key, authority, authority_key, today)
    return Certificates(_pem(authority), _private(authority_key), _pem(server), _private(key))


def renew(given: Certificates, hosts: Sequence[str], now: float) -> str:
    """Return a server's certificate anew, by the same authority and for the same key.

    So the file of the certificate is the only one that changes, at once: no server can find one
    that does not fit its key.

    Args:
        given: authority and server, as they are.
        hosts: names and addresses besides those that it is for.
        now: seconds since the epoch.

    Raises:
        ValueError: one of them is no certificate, no key, or no host.
    """
    today = dt.datetime.fromtimestamp(now, dt.UTC)
    authority = x509.load_pem_x509_certificate(given.authority.encode())
    old = x509.load_pem_x509_certificate(given.server.encode())
    authority_key, key = (
        serialization.load_pem_private_key(one.encode(), None)
        for one in (given.authority_key, given.server_key)
    )
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey) or not isinstance(
        key, ec.EllipticCurvePrivateKey
    ):
        raise ValueError("these are no keys that `lender-broker init` makes")  # noqa: TRY004
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = [str(one.value) for one in names]
    wanted = tuple(dict.fromkeys((*known, *hosts)))
    return _pem(_server(old.subject, wanted, key, authority, authority_key, today))


def _server(
    subject: x509.Name,
    hosts: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    today: dt.datetime,
) -> x509.Certificate:
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    return (
        _begin(subject, authority.subject, key, today)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    today: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - _EARLIER)
        .not_valid_after(today + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
