"""The gateway on a real port, with real node links: calls come in, are counted, and end."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import psutil
import pytest
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator
from websockets.exceptions import InvalidStatus

from actors.node_link import NodeLinkServer
from orchestrator.cluster.link_messages import Ended, Refused, Up
from orchestrator.errors import EndReason, SettingsError
from orchestrator.gateway.server import GatewayServer
from orchestrator.gateway.sessions import new_session_id
from orchestrator.settings import Secret, Settings
from orchestrator.stream_token import StreamTokens
from orchestrator.telemetry import names
from orchestrator.telemetry.metrics import RegistryMetrics
from tests.gateway.rig import UPGRADE, Answer, Rig, echo, eventually, parse, request, running

AUTH_TOKEN = "0123456789abcdef0123456789abcdef"
SETTINGS = Settings(port=0, max_sessions=3)
FORM = {"CallSid": "CA" + "0" * 31 + "2", "From": "+15005550006", "To": "+15005550001"}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def rig(link_path: str) -> AsyncIterator[Rig]:
    async with running(SETTINGS, link_path) as rig:
        yield rig


class TestDocuments:
    async def test_it_is_healthy_at_once_and_ready_while_an_actor_is_linked(self, rig: Rig) -> None:
        assert (await rig.get("/healthz")).status == 200
        assert (await rig.get("/readyz")).status == 503
        actor = await rig.add_actor()
        assert (await rig.get("/readyz")).status == 200
        await actor.close()
        await eventually(lambda: not rig.server.ready)
        assert (await rig.get("/readyz")).status == 503
        assert (await rig.get("/healthz")).status == 200

    async def test_metrics_are_served_as_prometheus_text(self, rig: Rig) -> None:
        await rig.add_actor()
        await rig.add_actor()
        async with rig.call() as caller:
            await echo(caller, "x")
            answer = await rig.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=")
            text = answer.body.decode()
            assert 'orchestrator_sessions{state="live"} 1.0' in text
            assert 'orchestrator_session_actors{state="busy"} 1.0' in text
            assert 'orchestrator_session_actors{state="free"} 1.0' in text
            assert 'orchestrator_session_starts_total{channel="openai"} 1.0' in text
            assert "orchestrator_accept_seconds_count 1.0" in text
        await eventually(lambda: rig.metric(names.SESSION_ENDS_TOTAL, channel="openai", reason="closed_normally") == 1)
        assert b'orchestrator_sessions{state="live"} 0.0' in (await rig.get("/metrics")).body


class TestFailure:
    async def test_when_accepting_fails_for_good_it_is_not_ready_and_the_calls_go_on(self, rig: Rig) -> None:
        await rig.add_actor()
        async with rig.call() as caller:
            await echo(caller, "x")
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            await eventually(lambda: rig.server.snapshot().pending_heads == 1)
            break_listener(rig.port)
            await eventually(lambda: rig.server.failure is not None)
            assert rig.server.failure is not None
            assert (rig.server.failure.code, rig.server.failure.by) == ("accept_failed", "infrastructure")
            assert not rig.server.snapshot().ready
            writer.write(request("GET", "/readyz"))
            answer = parse(await reader.read())
            assert (answer.status, answer.body) == (503, b"accept_failed\n")
            writer.close()
            await echo(caller, "still here")


def break_listener(port: int) -> None:
    """Shut the listening socket down, so that accept() fails with an error that no waiting mends."""
    found = psutil.Process().net_connections(kind="tcp")
    (fd,) = [entry.fd for entry in found if entry.status == psutil.CONN_LISTEN and entry.laddr.port == port]
    with socket.socket(fileno=os.dup(fd)) as listener:
        listener.shutdown(socket.SHUT_RDWR)


class TestCalls:
    async def test_a_caller_reaches_an_actor_with_all_that_it_sent(self, rig: Rig) -> None:
        actor = await rig.add_actor()
        async with rig.call("/v1/realtime?model=m", subprotocols=["realtime"]) as caller:
            await echo(caller, "hello")
            assert caller.subprotocol == "realtime"
            (adopt,) = actor.adopted
            assert re.fullmatch(r"sess_[0-9A-Za-z]{21}", adopt.session_id)
            assert adopt.channel == "openai"
            assert adopt.head.startswith(b"GET /v1/realtime?model=m HTTP/1.1\r\n")
            host, port = caller.local_address
            assert adopt.peer == f"{host}:{port}"
            (session,) = rig.server.snapshot().sessions
            assert (session.session_id, session.state, session.actor_id) == (adopt.session_id, "live", actor.name)
        await eventually(lambda: not rig.server.snapshot().sessions)
        snapshot = rig.server.snapshot()
        assert (snapshot.starts, snapshot.ends, snapshot.handshakes) == (1, 1, 0)
        assert snapshot.actors[0].used == 0

    async def test_what_was_sent_right_after_the_head_is_passed_along(self, rig: Rig) -> None:
        await rig.add_actor()
        frame = b"\x81\x85\x00\x00\x00\x00hello"
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request("GET", "/v1/realtime", UPGRADE) + frame)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(7) == b"\x81\x05hello"
        writer.close()
        await writer.wait_closed()

    async def test_a_head_that_comes_byte_by_byte_is_complete_in_the_end(self, rig: Rig) -> None:
        await rig.add_actor()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        for byte in request("GET", "/v1/realtime", UPGRADE):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.close()
        await writer.wait_closed()

    async def test_an_actor_gets_a_second_call_only_when_no_empty_one_is_left(self, rig: Rig) -> None:
        actors = [await rig.add_actor(seats=2), await rig.add_actor(seats=2)]
        async with rig.call() as first, rig.call() as second:
            assert [len(actor.calls) for actor in actors] == [1, 1]
            async with rig.call() as third:
                for caller in (first, second, third):
                    await echo(caller, "x")
                assert sorted(len(actor.calls) for actor in actors) == [1, 2]

    async def test_over_the_cap_a_caller_is_told_to_come_back_and_the_others_go_on(self, rig: Rig) -> None:
        await rig.add_actor(seats=5)
        async with AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(rig.call()) for _ in range(3)]
            answer = await rig.get("/v1/realtime", UPGRADE)
            assert (answer.status, answer.code) == (503, "capacity")
            assert int(answer.headers["retry-after"]) > 0
            for caller in callers:
                await echo(caller, "still here")
            await callers[0].close()
            await eventually(lambda: len(rig.server.snapshot().sessions) == 2)
            async with rig.call() as caller:
                await echo(caller, "in at last")
        assert rig.metric(names.REFUSALS_TOTAL, reason="capacity") == 1

    async def test_unanswered_handshakes_count_against_the_cap(self, rig: Rig) -> None:
        actor = await rig.add_actor(seats=5, answers=False)
        async with AsyncExitStack() as stack:
            waiting = [asyncio.ensure_future(stack.enter_async_context(rig.call())) for _ in range(3)]
            await eventually(lambda: len(actor.held) == 3)
            assert rig.server.snapshot().handshakes == 3
            assert (await rig.get("/v1/realtime", UPGRADE)).code == "capacity"
            actor.answer_held()
            for caller in await asyncio.gather(*waiting):
                await echo(caller, "x")
            assert rig.server.snapshot().handshakes == 0

    async def test_without_a_free_actor_a_caller_is_refused_and_no_slot_is_lost(self, rig: Rig) -> None:
        for _ in range(5):
            answer = await rig.get("/v1/realtime", UPGRADE)
            assert (answer.status, answer.code) == (503, "no_session_actor")
            assert "retry-after" in answer.headers
        await rig.add_actor()
        async with rig.call() as caller:
            await echo(caller, "x")
            assert (await rig.get("/v1/realtime", UPGRADE)).code == "no_session_actor"

    async def test_a_session_that_does_not_exist_is_404_and_one_that_has_a_caller_409(self, rig: Rig) -> None:
        actor = await rig.add_actor()
        answer = await rig.get("/v1/realtime?session_id=sess_nobody", UPGRADE)
        assert (answer.status, answer.code) == (404, "session_not_found")
        async with rig.call() as caller:
            await echo(caller, "x")
            (session_id,) = actor.calls
            answer = await rig.get(f"/v1/realtime?session_id={session_id}", UPGRADE)
            assert (answer.status, answer.code) == (409, "session_busy")
            await echo(caller, "y")
        await eventually(lambda: not rig.server.snapshot().sessions)
        assert (await rig.get(f"/v1/realtime?session_id={session_id}", UPGRADE)).code == "session_not_found"

    def test_session_ids_do_not_repeat(self) -> None:
        assert len({new_session_id() for _ in range(1000)}) == 1000


class TestActors:
    async def test_an_actor_that_comes_back_on_a_new_link_keeps_its_sessions(self, rig: Rig) -> None:
        actor = await rig.add_actor()
        async with rig.call() as caller:
            await echo(caller, "x")
            (session,) = rig.server.snapshot().sessions
            actor.client.close()
            actor.client.start()
            await eventually(lambda: rig.server.snapshot().sessions != ())
            await echo(caller, "y")
            assert rig.server.snapshot().sessions[0].session_id == session.session_id
        await eventually(lambda: not rig.server.snapshot().sessions)

    async def test_a_gateway_that_starts_anew_learns_of_the_calls_that_go_on(self, rig: Rig, link_path: str) -> None:
        actor = await rig.add_actor()
        async with rig.call() as caller:
            await echo(caller, "x")
            rig.server.close()
            rig.links.close()
            await eventually(lambda: not actor.client.connected)
            async with running(SETTINGS, link_path) as successor:
                await eventually(lambda: len(successor.server.snapshot().sessions) == 1)
                await echo(caller, "y")
                (session,) = successor.server.snapshot().sessions
                assert (session.state, session.actor_id) == ("live", actor.name)
                assert session.session_id in actor.calls
                assert successor.server.snapshot().actors[0].used == 1

    async def test_a_message_about_a_session_of_another_actor_is_passed_over(self, rig: Rig) -> None:
        first, second = await rig.add_actor(answers=False), await rig.add_actor()
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request("GET", "/v1/realtime", UPGRADE))
        await eventually(lambda: len(first.held) == 1)
        second.client.send(Up(first.held[0][2].session_id, 0.1))
        second.client.send(Up("sess_unknown", 0.1))
        async with rig.call():
            assert rig.server.snapshot().starts == 1
            assert rig.server.snapshot().handshakes == 1
        writer.close()

    async def test_an_actor_that_refuses_frees_the_slot(self, rig: Rig) -> None:
        actor = await rig.add_actor(answers=False)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request("GET", "/v1/realtime", UPGRADE))
        await eventually(lambda: len(actor.held) == 1)
        actor.ended(actor.held[0][2].session_id, EndReason("no_seat", "all seats are taken"))
        await eventually(lambda: not rig.server.snapshot().sessions)
        assert rig.metric(names.REFUSALS_TOTAL, reason="no_seat") == 1
        writer.close()

    async def test_a_caller_whose_actor_refuses_is_told_to_come_back(self, rig: Rig) -> None:
        actor = await rig.add_actor(answers=False)
        asked = asyncio.ensure_future(rig.get("/v1/realtime", UPGRADE))
        await eventually(lambda: len(actor.held) == 1)
        sock, page, adopt = actor.held.pop()
        sock.close()
        os.close(page)
        actor.client.send(Refused(adopt.session_id, EndReason("no_seat", "all seats are taken")))
        answer = await asked
        assert (answer.status, answer.code) == (503, "no_seat")
        assert rig.metric(names.REFUSALS_TOTAL, reason="no_seat") == 1
        assert rig.server.snapshot().handshakes == 0

    async def test_an_actor_that_never_answers_loses_its_caller_and_gets_no_other(self, link_path: str) -> None:
        async with running(SETTINGS, link_path, answer_within=0.05) as rig:
            frozen = await rig.add_actor(seats=2, answers=False)
            with capture_logs() as logs:
                answer = await rig.get("/v1/realtime", UPGRADE)
            assert (answer.status, answer.code) == (503, "actor_silent")
            assert "retry-after" in answer.headers
            snapshot = rig.server.snapshot()
            assert (snapshot.handshakes, snapshot.sessions, snapshot.refusals) == (0, (), 1)
            assert rig.metric(names.REFUSALS_TOTAL, reason="actor_silent") == 1
            (refused,) = [line for line in logs if line["event"] == "session_refused"]
            assert (refused["reason"], refused["actor_id"]) == ("actor_silent", frozen.name)
            await eventually(lambda: frozen.ended_by_gateway == [frozen.adopted[0].session_id])
            # It holds the socket still; yet the connection is over.
            assert frozen.held[0][0].recv(1) == b""
            assert not rig.server.ready
            assert (await rig.get("/v1/realtime", UPGRADE)).code == "no_session_actor"
            # A word from it, whatever it is, and it is one of us again.
            frozen.client.send(Ended(frozen.adopted[0].session_id, EndReason("caller_lost")))
            await eventually(lambda: rig.server.ready)
            assert (await rig.get("/v1/realtime", UPGRADE)).code == "actor_silent"
            assert len(frozen.adopted) == 2

    async def test_an_actor_whose_link_takes_no_more_is_passed_over(self, rig: Rig) -> None:
        full = NodeLinkServer(f"{rig.link_path}-full", rig.server.sessions, queue_limit=0)
        full.start()
        await rig.add_actor(seats=2, path=full.path)
        well = await rig.add_actor(seats=2)
        async with rig.call() as first, rig.call() as second:
            await echo(first, "x")
            await echo(second, "y")
            assert len(well.calls) == 2
            answer = await rig.get("/v1/realtime", UPGRADE)
            assert (answer.status, answer.code) == (503, "no_session_actor")
            assert rig.server.snapshot().handshakes == 0
        full.close()


class TestDraining:
    async def test_nobody_is_admitted_any_more_and_live_calls_go_on(self, rig: Rig) -> None:
        actor = await rig.add_actor(seats=2)
        async with rig.call() as caller:
            rig.server.drain()
            rig.server.drain()
            answer = await rig.get("/v1/realtime", UPGRADE)
            assert (answer.status, answer.code) == (503, "draining")
            assert (await rig.get("/readyz")).status == 503
            assert (await rig.get("/healthz")).status == 200
            await echo(caller, "x")
            await eventually(lambda: actor.drains == 1)
            late = await rig.add_actor()
            await eventually(lambda: late.drains == 1)
        snapshot = rig.server.snapshot()
        assert snapshot.draining
        assert not snapshot.ready


class TestFrontDoor:
    @pytest.fixture
    async def rig(self, link_path: str) -> AsyncIterator[Rig]:
        settings = Settings(port=0, front_door_keys=(Secret("the-key"),))
        async with running(settings, link_path) as rig:
            await rig.add_actor()
            yield rig

    async def test_a_key_opens_the_door(self, rig: Rig) -> None:
        async with rig.call(additional_headers={"Authorization": "Bearer the-key"}) as caller:
            await echo(caller, "x")

    async def test_a_key_in_a_subprotocol_opens_the_door(self, rig: Rig) -> None:
        async with rig.call(subprotocols=["realtime", "openai-insecure-api-key.the-key"]) as caller:
            await echo(caller, "x")
            assert caller.subprotocol == "realtime"

    async def test_without_a_key_it_stays_shut_and_the_log_does_not_tell_what_was_shown(self, rig: Rig) -> None:
        with capture_logs() as logs, pytest.raises(InvalidStatus) as caught:
            async with rig.call("/v1/realtime?key=in-the-query", additional_headers={"Authorization": "Bearer guess"}):
                pass
        assert caught.value.response.status_code == 401
        assert [line["reason"] for line in logs] == ["invalid_api_key"]
        assert "guess" not in str(logs)
        assert "in-the-query" not in str(logs)

    async def test_it_does_not_tell_strangers_which_sessions_exist(self, rig: Rig) -> None:
        assert (await rig.get("/v1/realtime?session_id=sess_x", UPGRADE)).status == 401


class TestCarrier:
    @pytest.fixture
    async def rig(self, link_path: str) -> AsyncIterator[Rig]:
        settings = Settings(
            port=0,
            max_sessions=1,
            public_url="https://voice.example.com/base/",
            twilio_auth_token=Secret(AUTH_TOKEN),
            token_secret=Secret("shared"),
        )
        async with running(settings, link_path, clock=lambda: 1000.0) as rig:
            yield rig

    async def post(self, rig: Rig, form: dict[str, str] = FORM, token: str = AUTH_TOKEN) -> Answer:
        signature = RequestValidator(token).compute_signature("https://voice.example.com/base/twilio/voice", form)
        headers = {"X-Twilio-Signature": signature, **FORM_TYPE}
        return await rig.ask(request("POST", "/twilio/voice", headers, urlencode(form).encode()))

    async def test_a_signed_webhook_gets_a_stream_with_a_token_for_this_call(self, rig: Rig) -> None:
        await rig.add_actor()
        answer = await self.post(rig)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/xml")
        stream = ET.fromstring(answer.body).find("./Connect/Stream")
        assert stream is not None
        assert stream.get("url") == "wss://voice.example.com/base/twilio/media"
        (parameter,) = stream
        assert parameter.get("name") == "token"
        tokens = StreamTokens(Secret("shared"))
        assert tokens.verify_stream_token(parameter.get("value", ""), FORM["CallSid"], 1001.0)
        assert not tokens.verify_stream_token(parameter.get("value", ""), "CA-other", 1001.0)

    async def test_an_unsigned_or_wrongly_signed_webhook_is_refused(self, rig: Rig) -> None:
        await rig.add_actor()
        answer = await self.post(rig, token="another account's")
        assert (answer.status, answer.code) == (403, "bad_signature")
        answer = await rig.ask(request("POST", "/twilio/voice", FORM_TYPE, urlencode(FORM).encode()))
        assert answer.status == 403

    async def test_a_signed_stream_is_a_call_of_its_own_channel(self, rig: Rig) -> None:
        actor = await rig.add_actor()
        signature = RequestValidator(AUTH_TOKEN).compute_signature("wss://voice.example.com/base/twilio/media", {})
        async with rig.call("/twilio/media", additional_headers={"X-Twilio-Signature": signature}) as caller:
            await echo(caller, "x")
            assert actor.adopted[0].channel == "twilio"
            assert rig.metric(names.SESSION_STARTS_TOTAL, channel="twilio") == 1
            answer = await self.post(rig)
            assert answer.status == 200
            assert ET.fromstring(answer.body).find("./Reject[@reason='busy']") is not None
            assert rig.metric(names.REFUSALS_TOTAL, reason="capacity") == 1

    async def test_an_unsigned_stream_is_refused(self, rig: Rig) -> None:
        await rig.add_actor()
        answer = await rig.get("/twilio/media", UPGRADE)
        assert (answer.status, answer.code) == (403, "bad_signature")
        assert rig.server.snapshot().sessions == ()

    async def test_without_a_free_actor_the_line_is_busy(self, rig: Rig) -> None:
        assert b'<Reject reason="busy"' in (await self.post(rig)).body
        assert rig.metric(names.REFUSALS_TOTAL, reason="no_session_actor") == 1

    @pytest.mark.parametrize("call_sid", ["", "CA 1", "x" * 65, "<CA>"])
    async def test_a_form_without_a_proper_call_id_is_refused(self, rig: Rig, call_sid: str) -> None:
        answer = await self.post(rig, {**FORM, "CallSid": call_sid})
        assert (answer.status, answer.code) == (400, "bad_form")

    async def test_on_loopback_without_a_token_no_signature_is_asked_for(self, link_path: str) -> None:
        async with running(Settings(port=0), link_path) as rig:
            await rig.add_actor()
            answer = await rig.ask(request("POST", "/twilio/voice", FORM_TYPE, urlencode(FORM).encode()))
            stream = ET.fromstring(answer.body).find("./Connect/Stream")
            assert stream is not None
            assert stream.get("url") == f"ws://127.0.0.1:{rig.port}/twilio/media"
            async with rig.call("/twilio/media") as caller:
                await echo(caller, "x")

    async def test_without_a_public_address_the_own_one_is_what_is_signed(self, link_path: str) -> None:
        async with running(Settings(port=0, twilio_auth_token=Secret(AUTH_TOKEN)), link_path) as rig:
            await rig.add_actor()
            for host in ("127.0.0.1", "localhost"):
                url = f"http://{host}:{rig.port}/twilio/voice"
                headers = {"X-Twilio-Signature": RequestValidator(AUTH_TOKEN).compute_signature(url, FORM), **FORM_TYPE}
                answer = await rig.ask(request("POST", "/twilio/voice", headers, urlencode(FORM).encode()))
                assert answer.status == 200


class TestListening:
    async def test_a_taken_port_is_said_in_words(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = Settings(port=taken.getsockname()[1])
            with pytest.raises(SettingsError, match="another"):
                await GatewayServer(settings, RegistryMetrics()).start()

    @pytest.mark.parametrize("url", ["voice.example.com", "ftp://a", "https://", "https://a:port", "https://a?b=c"])
    async def test_a_malformed_public_address_is_refused(self, url: str) -> None:
        with pytest.raises(SettingsError, match="public_url"):
            await GatewayServer(Settings(port=0, public_url=url), RegistryMetrics()).start()

    async def test_closing_twice_is_once(self, link_path: str) -> None:
        async with running(SETTINGS, link_path) as rig:
            rig.server.close()
            with pytest.raises(OSError, match=r"refused|failed"):
                await rig.get("/healthz")
            rig.server.close()
