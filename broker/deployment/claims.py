"""What a deployment's tokens say: accounts, what crosses between them, and the scope of each role.

One pool is four accounts of the NATS server. The streams and the broker are in `core`; lenders,
submitters and strangers have their own, and import of `core` what the table of permissions says. So
a reply, which may name any subject, ends in the account of whoever asked (docs/decisions/0026).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lender.protocol import permissions
from lender.protocol.bounds import ENROL_BYTES_MAX
from lender.protocol.permissions import ANSWERS, HOME, RIGHTS, Account, Right, Role

ACCOUNTS: tuple[Account, ...] = ("core", "lenders", "submitters", "strangers")
ROLES: tuple[Role, ...] = tuple(HOME)

Signed = Account | Literal["system"]
"""Whose claims the operator signs, by name."""

SIGNED: tuple[Signed, ...] = (*ACCOUNTS, "system")
"""In the order in which servers are told: what gives before what takes of it."""

KNOWN = "_KNOWN"
"""What each account gives to the system's, and nobody ever says: see `system_account`."""

STRANGERS_CONNECTIONS_MAX = 512
"""Of all strangers together: a server takes 65,536, which are not for who has no token to fill."""

_UNBOUNDED = {"subs": -1, "data": -1, "payload": -1}
_ALL = "*"
"""Among revocations: whoever it is (NATS's jwt library, `All`)."""
_NS = 1_000_000_000

_OF_STRANGERS: dict[str, Any] = {
    # Whoever comes without a token uses the sentinel's, and has no key to show for it.
    "bearer_token": True,
    "subs": 16,
    "payload": ENROL_BYTES_MAX,
}


class Crossing(NamedTuple):
    """A subject that one account gives and another takes."""

    kind: str
    """`service` goes to the giver, `stream` comes from it."""
    giver: Account
    taker: Account
    subject: str


def operator(system: str) -> dict[str, Any]:
    """Return the claims of an operator whose server's own matters are in the account `system`."""
    return {"type": "operator", "system_account": system}


def system_account(accounts: Mapping[Account, str]) -> dict[str, Any]:
    """Return the claims of the account for the server's own matters.

    It takes something of each account, so that a server knows them all before it has a route. One
    that it first hears of by a route, just when it is used there, it can refuse for good
    (docs/decisions/0026, "Clusters").

    Args:
        accounts: public key of each.
    """
    imports = [
        {
            "name": f"{KNOWN}.{which}",
            "type": "stream",
            "account": key,
            "subject": KNOWN,
            "local_subject": f"{KNOWN}.{which}",
        }
        for which, key in accounts.items()
    ]
    return {"type": "account", "limits": _limits(jetstream=False), "imports": imports}


def account(
    which: Account,
    accounts: Mapping[Account, str],
    signing_keys: Mapping[Role, str],
    store_bytes: int | None = None,
) -> dict[str, Any]:
    """Return the claims of one of a pool's accounts.

    Args:
        which: one of them.
        accounts: public key of each.
        signing_keys: public key of what vouches for each role.
        store_bytes: what all streams together may take on disk; None: as much as the server has.
    """
    crossings = crossings_of(RIGHTS)
    return {
        "type": "account",
        "limits": {
            **_limits(jetstream=which == "core", store_bytes=store_bytes),
            **({"conn": STRANGERS_CONNECTIONS_MAX} if which == "strangers" else {}),
        },
        "exports": [
            *(
                _export(kind, subject)
                for kind, subject in _unique(
                    (x.kind, x.subject) for x in crossings if x.giver == which
                )
            ),
            _export("stream", KNOWN),
        ],
        "imports": [
            {
                "name": one.subject,
                "type": one.kind,
                "account": accounts[one.giver],
                "subject": one.subject,
                # The server then says from which line it came: strangers have no name to go by.
                **({"share": True} if which == "strangers" else {}),
            }
            for one in crossings
            if one.taker == which
        ],
        "signing_keys": [
            _signing_key(role, key)
            for role, key in sorted(signing_keys.items())
            if HOME[role] == which
        ],
    }


def signing_keys_of(nats: Mapping[str, Any]) -> dict[Role, list[str]]:
    """Return which keys vouch for each role of an account, the oldest first: the last one signs."""
    found: dict[Role, list[str]] = {}
    for one in nats["signing_keys"]:
        found.setdefault(one["role"], []).append(one["key"])
    return found


def renewed(
    nats: Mapping[str, Any],
    which: Account,
    accounts: Mapping[Account, str],
    signing_keys: Mapping[Role, Sequence[str]],
) -> dict[str, Any]:
    """Return an account's claims as the table has it now; what it may store and revocations stay.

    Args:
        nats: its claims until now.
        which: one of a pool's accounts.
        accounts: public key of each.
        signing_keys: of each role, the oldest first.
    """
    now = account(which, accounts, {})
    return {
        **nats,
        # Bounded since a later version than some deployments are of.
        "limits": {**nats["limits"], "conn": now["limits"]["conn"]},
        "exports": now["exports"],
        "imports": now["imports"],
        "signing_keys": [
            *(
                _signing_key(role, key)
                for role in sorted(ROLES)
                if HOME[role] == which
                for key in signing_keys.get(role, ())
            ),
            # A later version's, which this one is not to take away.
            *(one for one in nats["signing_keys"] if one["role"] not in ROLES),
        ],
    }


def scope(role: Role) -> dict[str, Any]:
    """Return what a role's signing key lets its users do: the server fills the templates in."""
    template: dict[str, Any] = {
        **_UNBOUNDED,
        "pub": {"allow": list(permissions.templates(role, "publish"))},
        "sub": {"allow": list(permissions.templates(role, "subscribe"))},
        # No MQTT, no web socket.
        "allowed_connection_types": ["STANDARD"],
    }
    if role == "stranger":
        template |= _OF_STRANGERS
    if role in ANSWERS:
        count_max, within_s = ANSWERS[role]
        template["resp"] = {
            "max": -1 if count_max is None else count_max,
            "ttl": int(within_s * _NS),
        }
    return template


def user(account_key: str, tags: Iterable[str] = ()) -> dict[str, Any]:
    """Return the claims of a user of a role, whose rights are those of the key that vouches."""
    return {"type": "user", "issuer_account": account_key, "tags": list(tags)}


def system_user(account_key: str | None = None) -> dict[str, Any]:
    """Return the claims of the operator's user of the server's own matters.

    Args:
        account_key: the account, where another key than its own vouches.
    """
    issuer = {} if account_key is None else {"issuer_account": account_key}
    return {"type": "user", **_UNBOUNDED, **issuer, "allowed_connection_types": ["STANDARD"]}


def vouched_also_by(nats: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the system account's claims by which what one more key has signed lets in."""
    known = nats.get("signing_keys", [])
    return {**nats, "signing_keys": known if key in known else [*known, key]}


def vouched_by(nats: Mapping[str, Any], key: str, since: int) -> dict[str, Any]:
    """Return the system account's claims by which nothing else lets in, nor what is older."""
    return {**nats, "signing_keys": [key], "revocations": {_ALL: since - 1}}


def revoked(nats: Mapping[str, Any], public_key: str, now: float) -> dict[str, Any]:
    """Return an account's claims by which no token counts that a key was given until `now`.

    Of a key that was let in again the token is a second ahead (`broker.core.enrolment`): it does
    not count either.
    """
    return refused_until(nats, public_key, int(now) + 1)


def refused_until(nats: Mapping[str, Any], public_key: str, until: int) -> dict[str, Any]:
    """Return an account's claims by which no token counts that a key was given until that second.

    What was refused before stays so.
    """
    before = nats.get("revocations", {})
    later = max(until, before.get(public_key, 0))
    return {**nats, "revocations": {**before, public_key: later}}


def crossings_of(rights: Iterable[Right]) -> list[Crossing]:
    """Return what has to cross between accounts so that the rights can be used."""
    found: dict[Crossing, None] = {}
    for one in rights:
        home = HOME[one.role]
        if one.towards != home:
            kind = "stream" if one.verb == "subscribe" else "service"
            subject = permissions.pattern_of(one.subject)
            found[Crossing(kind, one.towards, home, subject)] = None
    return [one for one in found if not _is_within_another(one, found)]


def _is_within_another(crossing: Crossing, others: Iterable[Crossing]) -> bool:
    """Tell whether it crosses anyway: the server takes no overlapping imports."""
    return any(
        one != crossing
        and one[:3] == crossing[:3]
        and permissions.permits([one.subject], crossing.subject)
        for one in others
    )


def _signing_key(role: Role, key: str) -> dict[str, Any]:
    return {"kind": "user_scope", "key": key, "role": role, "template": scope(role)}


def _export(kind: str, subject: str) -> dict[str, Any]:
    export = {"name": subject, "subject": subject, "type": kind}
    if kind == "service":
        # With the first of one answer the server forgets where it was to go; else after minutes.
        export["response_type"] = "Stream" if _is_answered_by_many(subject) else "Singleton"
    return export


def _is_answered_by_many(subject: str) -> bool:
    """Tell whether it is a pull, or asks all brokers."""
    return subject.startswith(("$JS.API.CONSUMER.MSG.NEXT.", "$SRV."))


def _limits(*, jetstream: bool, store_bytes: int | None = None) -> dict[str, Any]:
    """Return no other bound than the server's; who has no JetStream has no streams."""
    store = -1 if jetstream else 0
    return {
        **_UNBOUNDED,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": 0,
        "mem_storage": store,
        "disk_storage": store_bytes if jetstream and store_bytes is not None else store,
        "streams": store,
        "consumer": store,
    }


def _unique(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(pairs))
