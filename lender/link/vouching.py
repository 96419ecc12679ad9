"""Who may vouch for a fleet's servers, as the fleet itself says: a successor comes with a token."""

import ssl


def believed(named: bytes | None, told: str) -> list[bytes | None]:
    """Return authorities to be tried in turn: those that we are told of, then those we know.

    Who named none believes none: nobody has vouched for the server that says so.

    Args:
        named: certificates in PEM that have vouched for the server; None: nobody has.
        told: by the broker, in the same form.
    """
    if named is None or not _are_certificates(told):
        return [named]
    return list(dict.fromkeys((told.encode(), named)))


def _are_certificates(text: str) -> bool:
    if not text or not text.isascii():
        return False
    try:
        return bool(ssl.create_default_context(cadata=text).get_ca_certs())
    except (ssl.SSLError, ValueError):
        return False
