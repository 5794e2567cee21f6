"""Phones that ring: webhooks as they arrive, and a caller that is driven from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from orchestrator.errors import Refused
from orchestrator.simulator.endpoint.model_session import SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.phone import exchange
from orchestrator.simulator.phone.exchange import CallRules, PhoneExchange
from orchestrator.simulator.phone.order import PhoneOrder
from orchestrator.simulator.phone.webhook import WebhookSecret
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker
from tests.simulator.rest.support import PATIENCE, SECRET, Service, Simulator, serving
from tests.simulator.support import SCENARIO, UNIX_TIME, Recorder
from tests.waiting import until

FAST = ModelOptions(timing=Timing(first_output=0.0, pace=10.0), transcription_delay=0.0)


@pytest.fixture
async def server(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(SimulatorOptions(SCENARIO, model=FAST, on_frame=recorder), speaker) as running:
        yield running


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service()) as running:
        yield running


@pytest.fixture
def simulator(server: SimulatorServer) -> Simulator:
    return Simulator(server)


async def accept(server: SimulatorServer, call_id: str) -> None:
    async with AsyncOpenAI(api_key="x", base_url=server.rest_url) as client:
        await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")


async def test_the_webhook_says_who_calls_whom(service: Service, simulator: Simulator) -> None:
    headers = [{"name": "X-Tier", "value": "gold"}, {"name": "X-Tier", "value": "old"}]
    body = {"webhook_url": service.url, "secret": SECRET, "from": "sip:+1@a", "to": "sip:proj@b", "headers": headers}
    answer = await simulator.ask("POST", "", body)
    assert answer.status == 201
    event = await service.events.get()
    assert event.data.call_id == answer.json()["call_id"]
    sent = [(header.name, header.value) for header in event.data.sip_headers]
    assert sent[:2] == [("From", "sip:+1@a"), ("To", "sip:proj@b")]
    assert sent[-2:] == [("X-Tier", "gold"), ("X-Tier", "old")]
    report = await simulator.until(event.data.call_id, "webhook_delivered")
    assert (report["from"], report["to"], report["state"]) == ("sip:+1@a", "sip:proj@b", "ringing")


async def test_a_secret_of_the_server_signs_where_the_call_brings_none(
    recorder: Recorder, speaker: Speaker, service: Service
) -> None:
    rules = CallRules(webhook_secret=WebhookSecret(SECRET))
    async with SimulatorServer(SimulatorOptions(SCENARIO, on_frame=recorder, calls=rules), speaker) as running:
        answer = await Simulator(running).ask("POST", "", {"webhook_url": service.url})
        assert await service.call() == answer.json()["call_id"]


async def test_a_webhook_is_tried_again_and_may_come_twice(simulator: Simulator) -> None:
    async with serving(Service([500, 301])) as service:
        call_id = await simulator.ring(service, duplicates=2)
        assert await service.call() == call_id
        assert len(service.webhook_ids) == 4
        assert len(set(service.webhook_ids)) == 1
        report = await simulator.show(call_id)
    statuses = [event["status"] for event in report["events"] if event["event"].startswith("webhook")]
    assert statuses[:3] == [500, 301, 200]


async def test_a_webhook_that_nobody_takes_leaves_the_phone_ringing(service: Service, simulator: Simulator) -> None:
    answer = await simulator.ask("POST", "", {"webhook_url": "http://127.0.0.1:1/", "secret": SECRET, "retries": 0})
    report = await simulator.until(answer.json()["call_id"], "webhook_failed")
    assert report["state"] == "ringing"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "webhook_url"),
        ({"webhook_url": "http://example.com/"}, "webhook_url"),
        ({"webhook_url": "ftp://localhost/"}, "webhook_url"),
        ({"webhook_url": "http://localhost/", "secret": None}, "secret"),
        ({"webhook_url": "http://localhost/", "secret": "plain"}, "secret"),
        ({"webhook_url": "http://localhost/", "duplicates": 0}, "duplicates"),
        ({"webhook_url": "http://localhost/", "retries": 99}, "retries"),
        ({"webhook_url": "http://localhost/", "says": [{"dtmf": "x"}]}, "says[0]"),
        ({"webhook_url": "http://localhost/", "headers": [{"name": "a"}]}, "headers[0].value"),
        ({"webhook_url": "http://localhost/", "url": "b"}, "url"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(simulator: Simulator, body: Any, param: str) -> None:
    answer = await simulator.ask("POST", "", {"secret": SECRET, **body})
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert SECRET not in answer.body.decode()
    assert (await simulator.ask("GET")).json() == {"calls": []}


async def test_a_phone_is_driven_from_outside(server: SimulatorServer, service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    assert (await simulator.ask("POST", f"/{call_id}/dtmf", {"dtmf": "1"})).status == 409
    await accept(server, call_id)
    assert (await simulator.ask("POST", f"/{call_id}/say", {"text": "first question"})).status == 200
    await simulator.until(call_id, "caller_said")
    await simulator.until(call_id, "agent_started")
    assert (await simulator.ask("POST", f"/{call_id}/dtmf", {"dtmf": "12#"})).status == 200
    assert (await simulator.ask("POST", f"/{call_id}/hang_up")).status == 200
    report = await simulator.show(call_id)
    assert (report["state"], report["end"]["code"], report["end"]["by"]) == ("ended", "caller_hung_up", "caller")
    for action in ("hang_up", "dtmf", "say"):
        assert (await simulator.ask("POST", f"/{call_id}/{action}", {"dtmf": "1"})).status == 409


@pytest.mark.parametrize(("action", "body"), [("say", {}), ("say", {"text": ""}), ("dtmf", {"dtmf": "x"}), ("dtmf", {})])
async def test_what_a_caller_cannot_do_is_refused(
    server: SimulatorServer, service: Service, simulator: Simulator, action: str, body: Any
) -> None:
    call_id = await simulator.ring(service)
    await accept(server, call_id)
    assert (await simulator.ask("POST", f"/{call_id}/{action}", body)).status == 400


async def test_a_call_that_is_not_known_is_not_found(simulator: Simulator) -> None:
    for method, path in (("GET", "/rtc_x"), ("POST", "/rtc_x/hang_up"), ("POST", "/rtc_x/say")):
        answer = await simulator.ask(method, path)
        assert (answer.status, answer.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_a_caller_hangs_up_while_it_rings(service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    await simulator.ask("POST", f"/{call_id}/hang_up")
    assert (await simulator.show(call_id))["connected_seconds"] == 0


async def test_leaving_ends_the_calls_and_their_webhooks(recorder: Recorder, speaker: Speaker, service: Service) -> None:
    async with SimulatorServer(SimulatorOptions(SCENARIO, model=FAST, on_frame=recorder), speaker) as running:
        simulator = Simulator(running)
        call_id = await simulator.ring(service)
        await accept(running, call_id)
        # This one is still being delivered.
        await simulator.ask("POST", "", {"webhook_url": "http://127.0.0.1:1/", "secret": SECRET})
        raw = await connect(f"{running.url}?call_id={call_id}", additional_headers={"Authorization": "Bearer x"})
        await raw.recv()
    async with asyncio.timeout(PATIENCE):
        await raw.wait_closed()
    assert raw.close_code == 1001
    assert not [task for task in asyncio.all_tasks() if "webhook" in task.get_name()]


async def test_no_phone_rings_at_an_exchange_that_is_closed() -> None:
    with ThreadPoolExecutor(1) as pool:
        rules = CallRules(webhook_secret=WebhookSecret(SECRET))
        closed = PhoneExchange(rules, SpeechDesk(Speaker(), pool), "en-us", lambda: IdSource(time.time))
        await closed.aclose()
        with pytest.raises(Refused, match="going away"):
            closed.ring(PhoneOrder(webhook_url="http://localhost/"))
    assert closed.calls == []


async def test_there_is_an_end_to_the_calls(monkeypatch: pytest.MonkeyPatch, service: Service, simulator: Simulator) -> None:
    monkeypatch.setattr(exchange, "MOST_LIVE", 2)
    monkeypatch.setattr(exchange, "MOST_KNOWN", 3)
    first, second = await simulator.ring(service), await simulator.ring(service)
    refused = await simulator.ask("POST", "", {"webhook_url": service.url, "secret": SECRET})
    assert (refused.status, refused.json()["error"]["code"]) == (429, "too_many_calls")
    for call_id in (first, second):
        await simulator.ask("POST", f"/{call_id}/hang_up")
    third, fourth = await simulator.ring(service), await simulator.ring(service)
    known = [call["call_id"] for call in (await simulator.ask("GET")).json()["calls"]]
    # The oldest that is over is forgotten.
    assert known == [second, third, fourth]


async def test_with_a_call_that_is_forgotten_ends_what_is_still_delivered_of_it(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    monkeypatch.setattr(exchange, "MOST_KNOWN", 2)

    def deliveries() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task.get_name().startswith("webhook ")]

    for _ in range(5):
        # Nobody is there, so it is tried again for minutes.
        answer = await simulator.ask("POST", "", {"webhook_url": "http://127.0.0.1:1/", "secret": SECRET, "retries": 10})
        await simulator.ask("POST", f"/{answer.json()['call_id']}/hang_up")

    async def few() -> bool:
        return len(deliveries()) <= 2

    await until(few)
    known = {f"webhook {call['call_id']}" for call in (await simulator.ask("GET")).json()["calls"]}
    assert {task.get_name() for task in deliveries()} == known


async def test_a_seed_makes_the_ids_of_calls_repeat(recorder: Recorder, speaker: Speaker, service: Service) -> None:
    seen: list[tuple[str, str]] = []
    for _ in range(2):
        options = SimulatorOptions(SCENARIO, on_frame=recorder, seed=7, wall_clock=lambda: UNIX_TIME)
        async with SimulatorServer(options, speaker) as running:
            order = {"webhook_url": "http://127.0.0.1:1/", "secret": SECRET, "retries": 0}
            call_id = (await Simulator(running).ask("POST", "", order)).json()["call_id"]
            (call,) = (await Simulator(running).ask("GET")).json()["calls"]
            seen.append((call_id, call["created_at"]))
    assert seen[0] == seen[1]


async def test_several_sockets_sit_beside_one_call(server: SimulatorServer, service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    await accept(server, call_id)
    url, key = f"{server.url}?call_id={call_id}", {"Authorization": "Bearer x"}
    async with connect(url, additional_headers=key) as first, connect(url, additional_headers=key) as second:
        for raw in (first, second):
            assert b"session.created" in await raw.recv(decode=False)
        await second.send('{"type":"input_audio_buffer.clear"}')
        heard = [await raw.recv() for raw in (first, second)]
        assert heard[0] == heard[1]
        assert (await simulator.show(call_id))["sidebands"] == 2
        await simulator.ask("POST", f"/{call_id}/hang_up")
        for raw in (first, second):
            await raw.wait_closed()
            assert raw.close_code == 1000
