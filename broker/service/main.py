"""`lender-broker`: gives submitters' jobs to the machines that lend, and commits their results."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from broker.deployment import command as deploying
from broker.deployment import rotation_command as rotating
from broker.deployment import strangers
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.revocation import revoke
from broker.service import bounding, letting_in
from broker.service.allowances import Allowance
from broker.service.errors import ConnectionClosedError
from broker.service.settings import BrokerSettings
from broker.service.submitters import SubmittersError, SubmittersFile
from lender.link.errors import LinkError
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import check_public_key
from lender.service import logs, program
from lender.service.places import NoHomeError
from lender.service.quantities import size_bytes
from lender.service.settings import SettingsError, find_file, given, load

EXAMPLES = """examples:
  lender-broker init                           makes keys and accounts: only whom they vouch for
                                               is let in (docs/deployment.md)
  lender-broker init --cluster a.lab b.lab c.lab
                                               and a folder for each server of a cluster
  lender-broker serve --embedded               NATS on 127.0.0.1:4222, state in ~/.local/state
  lender-broker serve --url nats://nats.lab:4222
  lender-broker serve --url nats://nats.lab:4222 (on another machine)  stands by, takes over
  lender-broker serve --pools render ...       refuses jobs for other pools (docs/pools.md)
  lender-broker allow alice UCXY...            she may submit, at once
  lender-broker allow alice --weight 2 --running 100
                                               twice the usual share, 100 tasks at once
  lender-broker allow default --jobs 1000      for all of whom nothing else was said
  lender-broker submitters                     who may submit, and how much
  lender-broker forbid alice                   she may not any more
  lender-broker approve 4G7K-X2MQ              lets a machine or a submitter in that shows this
  lender-broker token --role lender --expires 1h
                                               a join token, for automation: lets one in, once
  lender-broker requests                       who waits to be let in
  lender-broker bound UCXY... --submitters alice,bob
                                               that lender may work for these alone
  lender-broker strangers --url ...            from where, and --at-most 16 of each address
  lender-broker revoke UCXY... --url ...       that key is let in no more, at once
  lender-broker rotate --url ...               new keys vouch for all; old tokens stay good
  lender-broker rotate --retire --url ...      they do no more
  lender-broker rotate --tls --url ...         new certificates for servers
  lender-broker rotate --authority             a successor for who vouches for them
  lender-broker rotate --routes                the same for servers of a cluster

Settings also come from a TOML file (--config) and from the environment:
  LENDER_BROKER_URL, _EMBEDDED, _PORT, _STORE, _STATE, _CREDENTIALS, _CA, _DEPLOYMENT, _SUBMITTERS,
  _POOLS, _JOBS_BYTES, _RESULTS_BYTES, _REPLICAS, _METRICS, _LOG_LEVEL,
  _LOG_FORMAT;
  in the file, a table [submitters] with name = "U..." allows submitters, too.

exit codes: 0 ended as asked, 1 something failed (stderr says what to do), 2 bad usage or setting
"""

CA_HELP = "certificates of who may vouch for the NATS server, for TLS (ca.pem of the deployment)"

_FAILURES = (
    LinkError,
    ConnectionClosedError,
    DeploymentError,
    SubmittersError,
    letting_in.LettingInError,
    OSError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parse(argv)
    try:
        said = given(BrokerSettings, vars(arguments))
        settings = load(BrokerSettings, find_file(arguments.config, "broker.toml"), said)
    except (SettingsError, NoHomeError) as error:
        return _fail(error, code=2)
    try:
        if arguments.command == "serve":
            logs.set_up(settings.log_level, settings.log_format)
            uvloop.run(_serve(settings, arguments.ready_file))
        elif arguments.command in ("init", "revoke", "rotate", "strangers"):
            print(_changed(arguments, settings))  # noqa: T201 - asked for
        elif arguments.command == "bound":
            print(bounding.run(arguments, settings))  # noqa: T201 - asked for
        elif arguments.command in letting_in.COMMANDS:
            print(letting_in.run(arguments, settings, os.urandom))  # noqa: T201 - asked for
        else:
            _of_submitters(arguments, settings)
    except _FAILURES as error:
        return _fail(error, code=1)
    except BaseExceptionGroup as group:
        first = _first(group)
        if isinstance(first, _FAILURES):
            return _fail(first, code=1)
        raise
    return 0


def _changed(arguments: argparse.Namespace, settings: BrokerSettings) -> str:
    """Carry out a command of the operator's on the deployment; returns what to tell of it."""
    deployment, now = Deployment(settings.deployment_folder.absolute()), time.time()
    if arguments.command == "init":
        return deploying.run(arguments, deployment, settings.port, os.urandom, now)
    if arguments.command == "rotate":
        where = (deployment, settings.url, settings.ca)
        return rotating.run(arguments, *where, os.urandom, now)
    if arguments.command == "strangers":
        return strangers.run(arguments, deployment, settings.url, settings.ca)
    asyncio.run(revoke(deployment, settings.url, settings.ca, arguments.key, now))
    # Tokens tell seconds apart: what is issued once we have returned is later than what we refuse.
    time.sleep(max(0.0, int(now) + 2 - time.time()))
    return (
        f"{arguments.key} is let in no more; jobs that it has submitted go on: "
        "`lender-broker allow NAME --running 0` holds them back"
    )


def _of_submitters(arguments: argparse.Namespace, settings: BrokerSettings) -> None:
    """Carry out what is about who may submit."""
    file = SubmittersFile(settings.state)
    if arguments.command == "allow":
        file.allow(arguments.name, arguments.key, _said(arguments))
    elif arguments.command == "submitters":
        print(file.read().as_table(settings.submitters))  # noqa: T201 - asked for
    else:
        file.forbid(arguments.name)


async def _serve(settings: BrokerSettings, ready_file: Path | None) -> None:
    with program.loading():
        # A fifth of the start of all other commands, which need none of it.
        from broker.service.lifetime import Lifetime  # noqa: PLC0415

    lifetime = Lifetime(settings, ready_file)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifetime.stop)
    await lifetime.run()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lender-broker",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="TOML file (default: broker.toml, if any)")
    common.add_argument("--state", type=Path, help="state folder")
    common.add_argument(
        "--deployment", type=Path, metavar="DIR", help="what `init` makes (default: in the state)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", parents=[common], help="run the broker")
    serve.add_argument("--url", help="NATS server to use")
    serve.add_argument(
        "--creds",
        dest="credentials",
        type=Path,
        metavar="FILE",
        help="what that server lets us in by: an nkey seed, a .creds file, or user:password",
    )
    serve.add_argument("--ca", type=Path, metavar="FILE", help=CA_HELP)
    serve.add_argument(
        "--embedded", action="store_true", default=None, help="run a NATS server as part of this"
    )
    serve.add_argument("--store", type=Path, help="folder of the embedded server")
    serve.add_argument("--port", type=int, help="port of the embedded server; 0 takes a free one")
    serve.add_argument(
        "--pools", nargs="+", metavar="POOL", help="serve these only; default: every pool's jobs"
    )
    for stream in ("jobs", "results"):
        serve.add_argument(
            f"--{stream}-bytes", type=int, metavar="N", help=f"bound on the stream {stream.upper()}"
        )
    serve.add_argument(
        "--metrics", metavar="ADDRESS", help="serve metrics there, such as 127.0.0.1:9463"
    )
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    serve.add_argument("--log-format", choices=("text", "json"))
    serve.add_argument(
        "--ready-file", type=Path, help="written when the broker serves: JSON with url and pid"
    )
    init = commands.add_parser("init", parents=[common], help="make what a fleet is let in by")
    init.add_argument("--port", type=int, help="of the server")
    deploying.configure(init)
    revoking = commands.add_parser("revoke", parents=[common], help="let a key in no more, at once")
    revoking.add_argument("key", type=_key, help="public key of a lender or a submitter, U...")
    revoking.add_argument("--url", help="NATS server of the fleet")
    revoking.add_argument("--ca", type=Path, metavar="FILE", help=CA_HELP)
    letting_in.configure(commands, common, CA_HELP)
    bound = commands.add_parser("bound", parents=[common], help="say for whom a lender may work")
    bounding.configure(bound, CA_HELP)
    rotate = commands.add_parser("rotate", parents=[common], help="new keys, nobody disconnected")
    rotating.configure(rotate, CA_HELP)
    waiting = commands.add_parser("strangers", parents=[common], help="who holds lines, unknown")
    strangers.configure(waiting, CA_HELP)
    _add_allow(commands.add_parser("allow", parents=[common], help="let a submitter in"))
    commands.add_parser("submitters", parents=[common], help="list who may submit, and how much")
    forbid = commands.add_parser("forbid", parents=[common], help="let a submitter in no more")
    forbid.add_argument("name", help="as it was allowed")
    return parser.parse_args(argv)


def _key(text: str) -> str:
    try:
        return check_public_key(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(error.reason) from error


def _add_allow(allow: argparse.ArgumentParser) -> None:
    allow.description = (
        "Let a submitter in, or change what it may have; a running broker notices. "
        "What is not named stays as it was."
    )
    allow.add_argument("name", help="what people call it; `default` for all others")
    allow.add_argument(
        "key", nargs="?", help="its public key, U... (`lender keygen` prints it), when it is new"
    )
    for option, field, read, metavar, help_text in (
        ("--jobs", "jobs_max", int, "N", "N jobs that have not ended"),
        ("--tasks", "tasks_max", int, "N", "N tasks of those"),
        ("--running", "running_tasks_max", int, "N", "N tasks handed out at once (0: none more)"),
        ("--bytes", "bytes_max", size_bytes, "SIZE", "so much of their specifications in memory"),
        (
            "--stored",
            "stored_bytes_max",
            size_bytes,
            "SIZE",
            "so much of what it stores, and the same again of what lenders leave for it (10G)",
        ),
    ):
        allow.add_argument(
            option, dest=field, type=read, metavar=metavar, help=f"at most {help_text}"
        )
    allow.add_argument(
        "--weight", type=float, metavar="W", help="entitled to W times what others are (usual: 1)"
    )


def _said(arguments: argparse.Namespace) -> dict[str, int | float]:
    """Return what `allow` was told of weight and quotas."""
    told = vars(arguments)
    return {name: told[name] for name in Allowance.model_fields if told[name] is not None}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _fail(error: BaseException, code: int) -> int:
    print(f"lender-broker: {error}", file=sys.stderr)  # noqa: T201
    return code
