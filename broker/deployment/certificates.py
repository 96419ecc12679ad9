"""Certificates for a server's TLS, by an authority of the fleet's own (X.509, RFC 5280)."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.deployment.contents import Certificates, Pair

VALID = dt.timedelta(days=3650)
"""A fleet at home is not to stop one day for want of a new one."""

_EARLIER = dt.timedelta(days=1)
"""Clocks of small machines may be behind."""


class _Loaded(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(fleet: str, hosts: Sequence[str], now: float) -> Certificates:
    """Return an authority of the fleet's own, and a server's certificate by it.

    Args:
        fleet: its name.
        hosts: names and addresses by which clients know the server.
        now: seconds since the epoch.
    """
    authority = make_authority(f"{fleet} authority", now)
    return Certificates(*authority, *issue(authority, f"{fleet} server", hosts, now))


def make_authority(name: str, now: float) -> Pair:
    """Return one that vouches for itself, and may for others."""
    key, called = ec.generate_private_key(ec.SECP256R1()), _name(name)
    certificate = (
        _begin(called, called, key, _day(now))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(certificate), _private(key))


def issue(
    authority: Pair, name: str, hosts: Sequence[str], now: float, *, calls: bool = False
) -> Pair:
    """Return a server's certificate by an authority, for a new key.

    Args:
        authority: that vouches for it.
        name: of the server, for people.
        hosts: names and addresses by which others know it.
        now: seconds since the epoch.
        calls: other servers, too, and shows them this certificate.

    Raises:
        ValueError: the authority is none, or a host.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
    if calls:
        purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    usage = x509.ExtendedKeyUsage(purposes)
    certificate = _server(_name(name), hosts, key, usage, _loaded(authority), _day(now))
    return Pair(_pem(certificate), _private(key))


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
    authority = _loaded(Pair(given.authority, given.authority_key))
    old, key = _loaded(Pair(given.server, given.server_key))
    try:
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ValueError(f"it is none that `lender-broker init` makes: {error}") from error
    known = [str(one.value) for one in names]
    wanted = tuple(dict.fromkeys((*known, *hosts)))
    return _pem(_server(old.subject, wanted, key, usage, authority, _day(now)))


def vouches(authority: str, certificate: str) -> bool:
    """Tell whether an authority has issued a certificate.

    Raises:
        ValueError: one of them is none.
    """
    issuer = x509.load_pem_x509_certificate(authority.encode())
    try:
        x509.load_pem_x509_certificate(certificate.encode()).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _server(
    subject: x509.Name,
    hosts: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    usage: x509.ExtendedKeyUsage,
    authority: _Loaded,
    today: dt.datetime,
) -> x509.Certificate:
    issuer_id = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    return (
        _begin(subject, authority.certificate.subject, key, today)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )


def _loaded(pair: Pair) -> _Loaded:
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("this is no key that `lender-broker init` makes")  # noqa: TRY004
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    if certificate.public_key() != key.public_key():
        raise ValueError(
            "key and certificate do not fit each other: restore them, or complete what was begun"
        )
    return _Loaded(certificate, key)


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


def _day(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC)


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
