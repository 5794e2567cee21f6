"""Session actors die, and their callers go on with others: real sockets, real pages, real node links."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from orchestrator.gateway.recovery_commands import RecoveryLimits
from orchestrator.settings import Settings
from orchestrator.telemetry import names
from tests.gateway.rig import UPGRADE, Rig, echo, eventually, request, running

SETTINGS = Settings(port=0, max_sessions=8)
LIMITS = RecoveryLimits(recover_within=0.5, relink_within=0.1)


@pytest.fixture
async def rig(link_path: str) -> AsyncIterator[Rig]:
    async with running(SETTINGS, link_path, limits=LIMITS) as rig:
        yield rig


async def test_the_callers_of_an_actor_that_dies_go_on_with_others(rig: Rig) -> None:
    doomed = await rig.add_actor()
    async with rig.call() as lost:
        await echo(lost, "x")
        other = await rig.add_actor(seats=2)
        async with rig.call() as kept:
            await echo(kept, "y")
            with capture_logs() as logs:
                await doomed.close()
                await echo(lost, "the same connection")
                await echo(kept, "and the other one")
                await eventually(lambda: rig.metric(names.RECOVERIES_TOTAL, cause="actor_died") == 1)
            assert [message.session_id for message, _ in other.recovered] == [doomed.adopted[0].session_id]
            assert {session.actor_id for session in rig.server.snapshot().sessions} == {other.name}
            assert max(session.epoch for session in rig.server.snapshot().sessions) == 2
            assert [line["epoch"] for line in logs if line["event"] == "session_recovered"] == [2]
    await eventually(lambda: not rig.server.snapshot().sessions)
    assert rig.server.snapshot().handshakes == 0


async def test_a_caller_whom_nobody_takes_over_is_let_go(rig: Rig) -> None:
    doomed, other = await rig.add_actor(), await rig.add_actor()
    async with rig.call() as first, rig.call() as second:
        await echo(first, "x")
        await echo(second, "y")
        await doomed.close()
        lost, kept = (first, second) if doomed.adopted[0].session_id not in other.calls else (second, first)
        with pytest.raises(ConnectionClosed):
            await first.recv() if lost is first else await second.recv()
        await echo(kept, "still here")
        await eventually(lambda: rig.metric(names.SESSION_ENDS_TOTAL, channel="openai", reason="recovery_failed") == 1)
        assert len(rig.server.snapshot().sessions) == 1


async def test_a_caller_who_waits_for_his_answer_gets_it_from_another(rig: Rig) -> None:
    doomed = await rig.add_actor(answers=False)
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(_call(rig))
        await eventually(lambda: len(doomed.held) == 1)
        other = await rig.add_actor()
        await doomed.close()
        await calling
    assert [adopt.session_id for adopt in other.adopted] == [doomed.adopted[0].session_id]
    assert (rig.server.snapshot().starts, rig.server.snapshot().handshakes) == (1, 0)


async def test_a_caller_who_waits_for_his_answer_is_refused_when_nobody_gives_it(rig: Rig) -> None:
    actor = await rig.add_actor(answers=False)
    asked = asyncio.ensure_future(rig.ask(request("GET", "/v1/realtime", UPGRADE)))
    await eventually(lambda: len(actor.held) == 1)
    await actor.close()
    answer = await asked
    assert (answer.status, answer.code) == (503, "recovery_failed")
    snapshot = rig.server.snapshot()
    assert (snapshot.starts, snapshot.ends, snapshot.handshakes, snapshot.sessions) == (0, 0, 0, ())


async def test_the_call_of_an_actor_that_comes_back_too_late_is_with_another(rig: Rig) -> None:
    """A process that stands still loses its calls, and is ended: it must not wake up as a second owner."""
    frozen = await rig.add_actor()
    async with rig.call() as caller:
        await echo(caller, "x")
        other = await rig.add_actor()
        frozen.stand_still()
        await eventually(lambda: frozen.process.poll() == -signal.SIGKILL)
        # With a process its links end.
        await frozen.close()
        await echo(caller, "y")
        assert len(other.recovered) == 1


async def test_a_new_gateway_holds_what_the_last_one_held(rig: Rig, link_path: str) -> None:
    actor = await rig.add_actor()
    port = rig.port
    async with rig.call() as caller:
        await echo(caller, "x")
        await eventually(lambda: actor.listener is not None)
        rig.server.close()
        rig.links.close()
        await eventually(lambda: not actor.client.connected)
        # Somebody calls while there is no gateway, and waits.
        waiting = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port))
        async with running(SETTINGS, link_path, limits=LIMITS, listener_within=5.0) as successor:
            assert successor.port == port
            _, writer = await waiting
            writer.close()
            other = await successor.add_actor()
            await eventually(lambda: len(successor.server.snapshot().sessions) == 1)
            await actor.close()
            await echo(caller, "y")
            assert len(other.recovered) == 1


async def _call(rig: Rig) -> None:
    async with rig.call() as caller:
        await echo(caller, "answered")
