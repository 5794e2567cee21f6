"""The gateway actor, one per node: the composition of the gateway's parts, and its report to the supervisor."""

from __future__ import annotations

import asyncio
import os

import msgspec
import ray
from prometheus_client import ProcessCollector
from ray.actor import ActorHandle

from actors import _options
from actors.node_link import NodeLinkServer
from orchestrator.errors import InfrastructureFault
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.gateway.server import GatewayServer
from orchestrator.journal.opening import open_journal
from orchestrator.journal.writer import JournalWriter
from orchestrator.settings import Settings
from orchestrator.telemetry.logs import bind, configure
from orchestrator.telemetry.metrics import RegistryMetrics

__all__ = ["GatewayActor"]

REPORT_INTERVAL = 1.0
# Seconds. Session actors look for a new gateway at least once a second.
LISTENER_WITHIN = 2.5


class GatewayActor:
    """A Ray actor: `settings` is `Settings.to_json()`, `node` the Ray node's id, `link_path` the socket of the node link.

    Its constructor raises SettingsError when the port, the link's path or the place for the journal cannot be had.
    """

    # Ray awaits an asynchronous constructor, here and after every restart.
    async def __init__(  # type: ignore[misc]
        self, settings: bytes, node: str, link_path: str
    ) -> None:
        self._settings = Settings.from_json(settings)
        configure(self._settings.log_level)
        self._log = bind(actor="gateway", pid=os.getpid())
        metrics = RegistryMetrics()
        ProcessCollector(registry=metrics.registry)
        self._store, spool = open_journal(self._settings, node=node)
        self._journal = JournalDesk(lambda desk: JournalWriter(self._store, spool, desk), metrics)
        self._server = GatewayServer(self._settings, metrics, node=node, journal=self._journal)
        self._links = NodeLinkServer(link_path, self._server.sessions)
        self._links.start()
        # The session actors kept the listening socket of the gateway that was here before.
        again = ray.get_runtime_context().was_current_actor_reconstructed
        await self._server.start(listener_within=LISTENER_WITHIN if again else 0.0)
        self._supervisor: ActorHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._reports = self._loop.create_task(self._report_for_ever(), name="report")

    async def address(self) -> tuple[str, int]:
        """Return the host as configured and the port that is listened on."""
        return self._server.address

    async def link_path(self) -> str:
        """Return the path of the node link's socket."""
        return self._links.path

    async def snapshot(self) -> bytes:
        """Return the `GatewaySnapshot`, MessagePack."""
        return self._encoded_snapshot()

    async def drain(self) -> None:
        """Admit no more callers; sessions go on."""
        self._server.drain()

    async def ping(self) -> int:
        """Return the pid. Raises InfrastructureFault when no caller or no session actor can connect any more, so that this
        actor is replaced; calls that run go on without it."""
        failure = self._server.failure or self._links.failure
        if failure is not None:
            raise InfrastructureFault(f"the gateway does not accept: {failure.code} {failure.text}")
        return os.getpid()

    def __ray_shutdown__(self) -> None:
        # Ray runs this before a graceful exit only, in the main thread, when it has stopped the loop and ended its thread.
        self._loop.run_until_complete(self._close())

    async def _close(self) -> None:
        self._reports.cancel()
        await asyncio.gather(self._reports, return_exceptions=True)
        self._server.close()
        self._links.close()
        await self._journal.aclose()
        await asyncio.to_thread(self._store.close)

    def _encoded_snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._server.snapshot())

    async def _report_for_ever(self) -> None:
        while True:
            try:
                await self._report()
            except Exception as error:  # noqa: BLE001 - whatever it is, a gateway that stops reporting would be taken for dead
                # No supervisor, or none that can be reached: calls come and go without it, and it asks for nothing we forget.
                self._supervisor = None
                self._log.debug("report_failed", error=type(error).__name__)
            await asyncio.sleep(REPORT_INTERVAL)

    async def _report(self) -> None:
        """Report once. No call waits for this task; waiting here keeps a dead supervisor from gathering reports."""
        if self._supervisor is None:
            # In a thread: while the control store is away, looking up a name blocks.
            self._supervisor = await asyncio.to_thread(_options.find, self._settings.namespace, _options.SUPERVISOR)
        if self._supervisor is not None:
            await self._supervisor.report.remote(self._encoded_snapshot())
