"""The broker's process: its NATS server, its connection, its readiness, its end."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from nats.errors import Error as NatsError

from broker.core.endpoints import Endpoints
from broker.core.enrolment.bound import Bound
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.signing import bring_up
from broker.service.buckets import Buckets
from broker.service.candidate import Candidate
from broker.service.discovery import Discovery
from broker.service.enrolment import EnrolmentDesk
from broker.service.enrolment_kept import read_bounds
from broker.service.metrics import BrokerMetrics
from broker.service.service import Service
from broker.service.settings import BrokerSettings
from broker.service.submitters import SubmittersFile
from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.errors import LinkError, passing
from lender.protocol.streams import FORMER_BLOBS, stream_configs
from lender.service.metrics_http import Address, MetricsServer
from lender.service.notify import feed_watchdog, notify

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 30.0
_RESTART_PAUSE_S = 1.0
_STREAMS_WITHIN_S = 60.0


class Lifetime:
    """Runs until `stop`, or until something fails that no retry can mend."""

    def __init__(self, settings: BrokerSettings, ready_file: Path | None) -> None:
        self._settings = settings
        self._ready_file = ready_file
        self._deployment = _deployment(settings)
        self._endpoints = Endpoints()
        self._stop = asyncio.Event()
        self._metrics = BrokerMetrics()
        self._line: Connection | None = None

    def stop(self) -> None:
        """End in good order."""
        self._stop.set()

    async def run(self) -> None:
        """Serve.

        Raises:
            ExceptionGroup: of LinkError, ConnectionClosedError, DeploymentError or OSError.
        """
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._serve())
            stopping = tasks.create_task(self._stop.wait())
            telling = tasks.create_task(self._serve_metrics())
            feeding = tasks.create_task(feed_watchdog())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, stopping, telling, feeding):
                task.cancel()
        notify("STOPPING=1")

    async def _serve(self) -> None:
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            url = settings.url
            if settings.embedded:
                url = await stack.enter_async_context(self._embedded())
            credentials, ca = self._way_in()
            connection = await connect(
                url,
                name="lender-broker",
                credentials=credentials,
                ca=ca,
                timeout_s=_CONNECT_TIMEOUT_S,
            )
            await stack.enter_async_context(connection)
            await _make_streams(JetStream(connection), settings)
            if credentials is None:  # a deployment's broker has no right to look
                await _tell_of_former_blobs(JetStream(connection))

            async def serve(leads: asyncio.Event, may_serve: Callable[[], bool]) -> None:
                submitters = SubmittersFile(settings.state)
                pools = None if settings.pools is None else frozenset(settings.pools)
                buckets = Buckets(connection, settings.replicas)
                bounds = None
                if self._deployment is not None:
                    bounds = functools.partial(read_bounds, JetStream(connection))
                service = Service(
                    *(connection, submitters, settings.submitters, may_serve),
                    *(pools, buckets, bounds),
                    *(self._metrics, self._endpoints),
                )
                async with asyncio.TaskGroup() as tasks:
                    desk = tasks.create_task(self._let_in(url, leads, may_serve, service.bind))
                    await service.run(leads, lambda: self._ready(url))
                    desk.cancel()

            me = secrets.token_urlsafe(16)
            self._line = connection
            notify("READY=1\nSTATUS=standing by")
            candidate = Candidate(connection, me, settings.replicas, serve, self._authorities)
            discovery = Discovery(connection, me, self._endpoints, candidate.leads)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(discovery.run())
                await candidate.run()

    async def _serve_metrics(self) -> None:
        """Serve them where that was asked for.

        Raises:
            OSError: the address can't be taken.
        """
        if self._settings.metrics is None:
            return
        address = Address.of(self._settings.metrics)
        server = MetricsServer(address, self._metrics.page, self._can_take_over)
        listener = server.listen()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.run(listener))
            tasks.create_task(self._metrics.measure_lag())

    def _can_take_over(self) -> bool:
        """Tell whether the line to the NATS server stands, and its streams were found."""
        return self._line is not None and self._line.connected

    async def _let_in(
        self,
        url: str,
        leads: asyncio.Event,
        may_serve: Callable[[], bool],
        tell_bounds: Callable[[Mapping[str, Bound]], None],
    ) -> None:
        """Serve enrolment while this broker leads; what fails there holds up nothing else."""
        settings, deployment = self._settings, self._deployment
        if deployment is None:
            return
        await leads.wait()
        credentials, ca = self._way_in()
        while True:
            try:
                line = await connect(
                    url,
                    name="lender-broker enrolment",
                    credentials=credentials,
                    ca=ca,
                    timeout_s=_CONNECT_TIMEOUT_S,
                )
                async with line:
                    submitters = SubmittersFile(settings.state)
                    desk = EnrolmentDesk(
                        *(line, deployment, submitters, settings.submitters),
                        *(may_serve, tell_bounds, self._endpoints),
                    )
                    await desk.run()
            except* (LinkError, NatsError) as group:
                logger.warning("enrolment: %s; trying again", group.exceptions[0])
            await asyncio.sleep(_RESTART_PAUSE_S)

    def _authorities(self) -> str:
        """Return who may vouch for the fleet's servers; empty: nothing is known of that now."""
        try:
            return "" if self._deployment is None else self._deployment.authorities()
        except DeploymentError:
            return ""

    def _way_in(self) -> tuple[Path | None, Path | None]:
        """Return the credentials and who may vouch for the server: as said, or the deployment's."""
        settings, deployment = self._settings, self._deployment
        if deployment is None:
            return settings.credentials, settings.ca
        # The embedded server is reached by the loopback alone, and has no TLS.
        ca = None if settings.embedded else deployment.authority
        return settings.credentials or deployment.broker_credentials, settings.ca or ca

    @contextlib.asynccontextmanager
    async def _embedded(self) -> AsyncIterator[str]:
        """Run the embedded server, and start it again on its store should it end."""
        settings = self._settings
        store = settings.store if settings.store is not None else settings.state / "nats"
        vouched = ""
        if self._deployment is not None:
            bring_up(self._deployment, os.urandom, time.time())
            vouched = self._deployment.embedded_config(store)
        port = settings.port or None
        async with EmbeddedServer(store, port=port, extra_config=vouched) as server:
            watch = asyncio.create_task(_keep_running(server))
            try:
                yield server.url
            finally:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch

    def _ready(self, url: str) -> None:
        logger.info("ready: %s", url)
        notify("STATUS=leading")
        if self._ready_file is not None:
            draft = self._ready_file.with_name(self._ready_file.name + ".new")
            draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            draft.replace(self._ready_file)


def _deployment(settings: BrokerSettings) -> Deployment | None:
    """Return the deployment that there is, or that was named.

    Raises:
        DeploymentError: that which was named is none.
    """
    found = Deployment(settings.deployment_folder)
    if found.exists:
        return found
    if settings.deployment is None:
        return None
    raise DeploymentError(f"{found.folder} is no deployment: make one with `lender-broker init`")


async def _make_streams(jetstream: JetStream, settings: BrokerSettings) -> None:
    """Make what is missing; a cluster that elects its leader has no answer for a while."""
    deadline = asyncio.get_running_loop().time() + _STREAMS_WITHIN_S
    for config in stream_configs(settings.replicas, settings.bytes_max):
        while True:
            try:
                await jetstream.ensure_stream(config)
                break
            except LinkError as error:
                if not passing(error) or asyncio.get_running_loop().time() > deadline:
                    raise
                logger.info("stream %s: %s", config["name"], error)
            await asyncio.sleep(_RESTART_PAUSE_S)


async def _tell_of_former_blobs(jetstream: JetStream) -> None:
    """Say so where contents of an earlier version are left: docs/deployment.md, "Upgrading"."""
    try:
        left = (await jetstream.stream_state(FORMER_BLOBS)).messages
    except LinkError:  # none, or another time
        return
    if left:
        logger.warning(
            "the stream %s holds contents that an earlier version stored: nobody reads them any "
            "more, jobs that need them are rejected and can be submitted again; remove it when "
            "nothing in it is wanted",
            FORMER_BLOBS,
        )


async def _keep_running(server: EmbeddedServer) -> None:
    while True:
        await server.ended()
        logger.warning("the embedded NATS server has ended; it is started again")
        try:
            await server.start()
        except LinkError as error:
            logger.warning("it can't be started: %s", error)
            await asyncio.sleep(_RESTART_PAUSE_S)
