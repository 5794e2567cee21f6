"""The web example's protocol: a WebSocket client in the place of the page, the offline endpoint in the place of the model."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from examples._serving import listen, origin_of, serving
from examples.web import agents
from examples.web.__main__ import SCENARIO
from examples.web.conversation import REFUSED
from examples.web.pictures import DEFAULT_TEXT, MAX_OPEN
from examples.web.protocol import MAX_MESSAGE
from examples.web.server import ENDED, FAILED, FULL, TURNED_AWAY, Desk, create_app
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeModelConfig, RealtimeModelSendRawMessage, RealtimeRunner
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import SpeechRequest, synthesize
from tests.waiting import until

BYTES_PER_MS = 48
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BOOKED = "Seat 12A is booked under number 4711."
# The agent speaks so many times faster than anybody can, but not at once: it must be possible to interrupt it.
QUICK = ModelOptions(timing=Timing(first_output=0.05, pace=25.0), transcription_delay=0.05)


class Page:
    """What the page does, without a browser: sends messages, and keeps every message that comes."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []
        self._read = 0

    async def send(self, type_: str, **members: Any) -> None:
        await self.connection.send(json.dumps({"type": type_, **members}))

    async def next(self, type_: str, fits: Callable[[dict[str, Any]], bool] = lambda message: True) -> dict[str, Any]:
        """Return the next message of a type that fits, after what was waited for before."""
        while True:
            while self._read < len(self.seen):
                message = self.seen[self._read]
                self._read += 1
                if message["type"] == type_ and fits(message):
                    return message
            self.seen.append(json.loads(await self.connection.recv()))

    async def says(self, words: str) -> None:
        """Wait until an item of the conversation holds these words, complete."""
        await self.next("history_updated", lambda event: any(words in text for text in finished(event["history"])))

    async def closed(self) -> int:
        """Wait until the server closes; return the code."""
        with suppress(ConnectionClosed):
            while True:
                self.seen.append(json.loads(await self.connection.recv()))
        assert self.connection.close_code is not None
        return self.connection.close_code

    def types(self) -> list[str]:
        return [message["type"] for message in self.seen]

    def raw_types(self) -> set[str]:
        return {message["raw_model_event"]["type"] for message in self.seen if message["type"] == "raw_model_event"}


def finished(history: list[dict[str, Any]]) -> list[str]:
    """Return the texts of the messages that are complete; a user's is when it is known."""
    return [
        " ".join(part.get("text") or part.get("transcript") or "" for part in item["content"])
        for item in history
        if item["type"] == "message" and item.get("status", "completed") == "completed"
    ]


def speech(text: str, silence_ms: int = 0) -> bytes:
    return synthesize(SpeechRequest(text)).audio + bytes(silence_ms * BYTES_PER_MS)


def frames(audio: bytes) -> list[bytes]:
    size = 40 * BYTES_PER_MS
    return [audio[start : start + size] for start in range(0, len(audio), size)]


class Site:
    """The server under test, and what a test may look at behind it."""

    def __init__(self, origin: str, desk: Desk, models: list[OpenAIRealtimeWebSocketModel], endpoint: AsyncExitStack) -> None:
        self.origin = origin
        self.desk = desk
        self.models = models
        self.endpoint = endpoint
        self._numbers = iter(range(100))

    @asynccontextmanager
    async def page(self, session_id: str = "", **options: Any) -> AsyncIterator[Page]:
        session_id = session_id or f"session_{next(self._numbers)}"
        url = f"{self.origin.replace('http', 'ws')}/ws/{session_id}"
        async with connect(url, max_size=None, max_queue=None, **options) as connection:
            yield Page(connection)


@asynccontextmanager
async def site_of(model_config: RealtimeModelConfig, endpoint: AsyncExitStack, max_sessions: int = 32) -> AsyncIterator[Site]:
    models: list[OpenAIRealtimeWebSocketModel] = []

    def new_model() -> OpenAIRealtimeWebSocketModel:
        models.append(OpenAIRealtimeWebSocketModel())
        return models[-1]

    runner = RealtimeRunner(agents.reception, model=new_model, config=agents.run_config)
    desk = Desk(runner, model_config, max_sessions=max_sessions)
    listener = listen("127.0.0.1", 0)
    async with serving(create_app(model_config, desk=desk), listener, max_message=MAX_MESSAGE):
        yield Site(origin_of(listener), desk, models, endpoint)


async def open_to(stack: AsyncExitStack) -> RealtimeModelConfig:
    """Start the offline endpoint, to end with the stack."""
    server = await stack.enter_async_context(SimulatorServer(SimulatorOptions(load_scenario(str(SCENARIO)), model=QUICK)))
    return {"url": f"{server.url}?model=gpt-realtime", "api_key": "offline"}


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(agents, "LOOK_UP_SECONDS", 0.0)
    async with AsyncExitStack() as endpoint, site_of(await open_to(endpoint), endpoint, max_sessions=2) as found:
        yield found


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Page]:
    async with site.page() as found:
        yield found


async def test_a_typed_turn_is_answered_in_words_and_sound(page: Page) -> None:
    await page.send("message", text="Thank you")
    user = await page.next("history_added")
    assert user["item"]["role"] == "user"
    assert finished([user["item"]]) == ["Thank you"]
    assert (await page.next("agent_start"))["agent"] == "Reception"
    ended = await page.next("audio_end")
    await page.says("You are welcome. Sleep well on the way!")
    assert (await page.next("agent_end"))["agent"] == "Reception"
    deltas = [message for message in page.seen if message["type"] == "transcript_delta"]
    assert "".join(message["delta"] for message in deltas) == "You are welcome. Sleep well on the way!"
    sounds = [message for message in page.seen if message["type"] == "audio"]
    parts = {(message["item_id"], message["content_index"]) for message in [*sounds, *deltas, ended]}
    assert len(parts) == 1
    assert sum(len(base64.b64decode(message["audio"])) for message in sounds) > 1000 * BYTES_PER_MS
    assert not [message for message in page.seen if message["type"] == "error"]
    assert next(message for message in page.seen if message["type"] != "raw_model_event") == {
        "type": "history_updated",
        "history": [],
    }


@pytest.mark.parametrize("form", ["binary", "json"])
async def test_a_spoken_turn_is_heard_and_answered(page: Page, form: str) -> None:
    for frame in frames(speech("Hello, what can you do for me?", silence_ms=700)):
        if form == "binary":
            await page.connection.send(frame)
        else:
            await page.send("audio", data=memoryview(frame).cast("h").tolist())
    await page.next("raw_model_event", lambda event: event["raw_model_event"]["type"] == "speech_started")
    await page.says("Hello, what can you do for me?")
    await page.next("transcript_delta")
    await page.next("audio")


async def test_the_page_may_say_itself_when_a_turn_ends_also_after_a_handoff(page: Page) -> None:
    await page.send("turn_detection", mode="manual")
    for words, answer in (("one", "reception of Nordline night trains"), ("two", "Anything else?")):
        for frame in frames(speech(words, silence_ms=900)):
            await page.connection.send(frame)
        await page.send("commit_audio", respond=True)
        await page.says(answer)
    handoffs = [(message["from"], message["to"]) for message in page.seen if message["type"] == "handoff"]
    assert handoffs == [("Reception", "Travel guide"), ("Travel guide", "Reception")]
    for frame in frames(speech("three", silence_ms=900)):
        await page.connection.send(frame)
    await page.send("commit_audio", respond=True)
    await page.next("tool_approval_required")
    assert not page.raw_types() & {"speech_started", "speech_stopped"}
    # And back: now it is heard by itself.
    await page.send("turn_detection", mode="server")
    for frame in frames(speech("four", silence_ms=900)):
        await page.connection.send(frame)
    await page.next("raw_model_event", lambda event: event["raw_model_event"]["type"] == "speech_stopped")


async def test_a_turn_without_audio_is_refused_before_the_model_answers_nothing(page: Page) -> None:
    await page.send("commit_audio", respond=True)
    assert (await page.next("error"))["about"] == "commit_audio"
    await page.send("commit_audio")
    refused = await page.next("error")
    assert refused["code"] == "input_audio_buffer_commit_empty"
    assert "agent_start" not in page.types()


async def test_a_slow_tool_is_shown_while_it_runs(page: Page) -> None:
    await page.send("message", text="May I bring my dog?")
    started = await page.next("tool_start")
    ended = await page.next("tool_end")
    assert {key: started[key] for key in ("tool", "agent", "arguments")} == {
        "tool": "look_up",
        "agent": "Travel guide",
        "arguments": '{"question":"May I bring my dog?"}',
    }
    assert (ended["call_id"], ended["ok"], ended["output"]) == (started["call_id"], True, agents.ANSWERS["dog"])
    await page.says(agents.ANSWERS["dog"])


async def ask_for_seat(page: Page) -> dict[str, Any]:
    await page.send("message", text="Please book seat 12A under number 4711.")
    return await page.next("tool_approval_required")


async def test_an_approved_tool_runs(page: Page) -> None:
    asked = await ask_for_seat(page)
    assert (asked["tool"], asked["agent"], asked["arguments"]) == ("book_seat", "Seats", '{"booking":"4711","seat":"12A"}')
    assert "tool_start" not in page.types()
    await page.send("tool_approval_decision", call_id=asked["call_id"], approve=True)
    ended = await page.next("tool_end")
    assert (ended["output"], ended["ok"]) == (BOOKED, True)
    await page.says(BOOKED)
    assert (await page.next("handoff"))["to"] == "Reception"


async def test_a_rejected_tool_never_runs_and_the_model_is_told(page: Page) -> None:
    asked = await ask_for_seat(page)
    await page.send("tool_approval_decision", call_id=asked["call_id"], approve=False)
    ended = await page.next("tool_end")
    assert (ended["ok"], ended["error_code"], ended["output"]) == (False, "rejected", REFUSED)
    await page.says(REFUSED)
    assert "tool_start" not in page.types()


@pytest.mark.parametrize("approve", [True, False])
async def test_always_decides_for_later_calls_too(page: Page, approve: bool) -> None:
    asked = await ask_for_seat(page)
    await page.send("tool_approval_decision", call_id=asked["call_id"], approve=approve, always=True)
    await page.says("Anything else?")
    await page.send("message", text="Please book seat 7 under number 800.")
    ended = await page.next("tool_end")
    assert (ended["ok"], ended["arguments"]) == (approve, '{"booking":"800","seat":"7"}')
    assert page.types().count("tool_approval_required") == 1


async def test_a_decision_about_nothing_changes_nothing(page: Page) -> None:
    await page.send("tool_approval_decision", call_id="call_unknown", approve=True)
    asked = await ask_for_seat(page)
    assert "tool_end" not in page.types()
    assert asked["call_id"] != "call_unknown"


async def test_an_interruption_cuts_at_what_the_page_has_played(page: Page) -> None:
    await page.send("message", text="Hello")
    first = await page.next("audio")
    place = {"item_id": first["item_id"], "content_index": first["content_index"]}
    await page.next("audio")
    await page.send("playback", **place, ms=110)
    await page.send("playback", **place, ms=217)
    await page.send("interrupt")
    cut = await page.next("audio_interrupted")
    assert {key: cut[key] for key in place} == place
    assert cut["heard_ms"] == 217
    assert cut["sent_ms"] >= 400
    await page.next("agent_end")
    await page.send("message", text="Thank you")
    await page.next("agent_end")
    history = [message for message in page.seen if message["type"] == "history_updated"][-1]["history"]
    spoken = next(item for item in history if item["item_id"] == place["item_id"])
    assert spoken["content"][0]["heard_ms"] == 217
    assert "interrupt me" not in spoken["content"][0]["transcript"]
    assert not [message for message in page.seen if message["type"] == "error"]


async def test_speaking_while_the_agent_is_heard_interrupts_it_there(page: Page) -> None:
    await page.send("message", text="Hello")
    first = await page.next("audio")
    await page.next("audio")
    await page.send("playback", item_id=first["item_id"], content_index=first["content_index"], ms=150.5)
    for frame in frames(speech("Can I take my bicycle with me?", silence_ms=700)):
        await page.connection.send(frame)
    cut = await page.next("audio_interrupted")
    assert cut["heard_ms"] == 150.5
    await page.says("Anything else?")


async def test_what_was_played_to_its_end_is_not_cut(page: Page) -> None:
    await page.send("message", text="Thank you")
    await page.next("agent_end")
    sounds = [message for message in page.seen if message["type"] == "audio"]
    played = sum(len(base64.b64decode(message["audio"])) for message in sounds) / BYTES_PER_MS
    await page.send("playback", item_id=sounds[0]["item_id"], content_index=0, ms=played)
    await page.send("interrupt")
    await page.send("message", text="Thank you")
    await page.next("agent_end")
    assert "audio_interrupted" not in page.types()


async def test_a_guardrail_stops_the_agent_and_it_corrects_itself(page: Page) -> None:
    await page.send("message", text="Is that certain?")
    tripped = await page.next("guardrail_tripped")
    assert tripped["guardrail_results"] == [{"name": "no_guarantees"}]
    await page.says("I am sorry, I cannot promise that.")


async def test_an_image_in_one_piece(page: Page) -> None:
    await page.send("image", data_url=PIXEL, text="What is this image?")
    assert (await page.next("client_info")) == {"type": "client_info", "info": "image_enqueued", "size": len(PIXEL)}
    item = (await page.next("history_added"))["item"]
    assert item["content"][0] == {"type": "input_image", "image_url": None, "detail": "high"}
    assert item["content"][1]["text"] == "What is this image?"
    await page.says("Thank you, I have your picture.")


async def test_an_image_in_chunks(page: Page) -> None:
    chunks = [PIXEL[start : start + 8] for start in range(0, len(PIXEL), 8)]
    await page.send("image_start", id="one")
    for chunk in chunks:
        await page.send("image_chunk", id="one", chunk=chunk)
    await page.send("image_end", id="one")
    await page.says(DEFAULT_TEXT)
    await page.says("Thank you, I have your picture.")
    confirmed = [message for message in page.seen if message["type"] == "client_info"]
    assert confirmed[0] == {"type": "client_info", "info": "image_start_ack", "id": "one"}
    assert confirmed[1] == {"type": "client_info", "info": "image_chunk_ack", "id": "one", "count": 10}
    assert confirmed[-1] == {"type": "client_info", "info": "image_enqueued", "id": "one", "size": len(PIXEL)}


async def test_the_model_is_given_the_image_itself(site: Site, page: Page) -> None:
    await page.send("image", data_url=PIXEL)
    raw: list[bytes] = []
    await page.next("history_added")
    site.models[0].tap(lambda event, data: raw.append(data))
    item_id = next(message for message in page.seen if message["type"] == "history_added")["item"]["item_id"]
    await site.models[0].send_event(RealtimeModelSendRawMessage({"type": "conversation.item.retrieve", "item_id": item_id}))
    await page.next("raw_model_event", lambda event: b"conversation.item.retrieved" in b"".join(raw))
    assert PIXEL.encode() in b"".join(raw)


MALFORMED: dict[str, tuple[str | bytes, str | None]] = {
    "not JSON": ("{", None),
    "not an object": ("[]", None),
    "no type": ("{}", None),
    "unknown type": ('{"type":"shutdown"}', "shutdown"),
    "deep": ("[" * 100_000, None),
    "broken text": ('{"type":"message","text":"\\ud800 and more"}', None),
    "audio of text": ('{"type":"audio","data":"AAAA"}', "audio"),
    "audio out of range": ('{"type":"audio","data":[40000]}', "audio"),
    "no audio": ('{"type":"audio","data":[]}', "audio"),
    "long audio": (json.dumps({"type": "audio", "data": [0] * 240_001}), "audio"),
    "commit_audio": ('{"type":"commit_audio","respond":1}', "commit_audio"),
    "interrupt": ('{"type":"interrupt","now":true}', "interrupt"),
    "message": ('{"type":"message","text":""}', "message"),
    "long message": (json.dumps({"type": "message", "text": "x" * 8001}), "message"),
    "turn_detection": ('{"type":"turn_detection","mode":"maybe"}', "turn_detection"),
    "image without": ('{"type":"image"}', "image"),
    "image from elsewhere": ('{"type":"image","data_url":"https://example.com/cat.png"}', "image"),
    "image of another kind": ('{"type":"image","data_url":"data:image/svg+xml;base64,AAAA"}', "image"),
    "image of bad base64": ('{"type":"image","data_url":"data:image/png;base64,%"}', "image"),
    "image that is none": ('{"type":"image","data_url":"data:image/png;base64,AAAA"}', "image"),
    "image_start": ('{"type":"image_start","id":""}', "image_start"),
    "image_chunk": ('{"type":"image_chunk","id":"unknown","chunk":"AAAA"}', "image_chunk"),
    "image_end": ('{"type":"image_end","id":"unknown"}', "image_end"),
    "tool_approval_decision": ('{"type":"tool_approval_decision","approve":true}', "tool_approval_decision"),
    "playback": ('{"type":"playback","item_id":"item","content_index":0,"ms":-1}', "playback"),
    "odd binary": (b"\0\0\0", "audio"),
    "empty binary": (b"", "audio"),
    "long binary": (bytes(480_002), "audio"),
}


async def test_every_malformed_message_is_answered_and_harms_nothing(page: Page) -> None:
    for name, (message, about) in MALFORMED.items():
        await page.connection.send(message)
        error = await page.next("error")
        assert (error["code"], error["about"]) == ("invalid_message", about), name
        assert error["error"], name
    # An image that was begun and never filled is empty, which shows at its end.
    await page.send("image_start", id="empty")
    await page.send("image_end", id="empty")
    assert (await page.next("error"))["about"] == "image_end"
    await page.send("message", text="Thank you")
    await page.says("You are welcome.")


async def test_images_are_bounded(page: Page) -> None:
    for number in range(MAX_OPEN):
        await page.send("image_start", id=str(number))
    await page.send("image_start", id="one too many")
    assert (await page.next("error"))["about"] == "image_start"
    chunk = "A" * (4 * 1024 * 1024)
    for _ in range(3):
        await page.send("image_chunk", id="0", chunk=chunk)
    assert "larger" in (await page.next("error"))["error"]
    # Its place is free again.
    await page.send("image_start", id="another")
    await page.next("client_info", lambda message: message.get("id") == "another")


async def test_a_message_of_more_than_16_mib_ends_the_connection(site: Site, page: Page) -> None:
    with suppress(ConnectionClosed):
        await page.connection.send("x" * (MAX_MESSAGE + 1))
    assert await page.closed() == 1009
    await until(lambda: none_left(site))


async def none_left(site: Site) -> bool:
    return site.desk.sessions == 0 and all(model.session is None for model in site.models)


@pytest.mark.parametrize("moment", ["at once", "while the agent speaks", "while a tool waits"])
async def test_a_page_that_leaves_closes_its_session(site: Site, moment: str) -> None:
    async with site.page() as page:
        if moment == "while the agent speaks":
            await page.send("message", text="Hello")
            await page.next("audio")
        elif moment == "while a tool waits":
            await ask_for_seat(page)
        if moment != "at once":
            assert site.desk.sessions == 1
            assert site.models[0].session is not None
    await until(lambda: none_left(site))


async def test_a_page_that_vanishes_closes_its_session(site: Site) -> None:
    async with site.page() as page:
        await page.send("message", text="Hello")
        await page.next("audio")
        page.connection.transport.abort()
        await until(lambda: none_left(site))


async def test_one_runner_serves_pages_side_by_side_and_a_busy_desk_says_so(site: Site) -> None:
    async with site.page("first") as first, site.page("second") as second:
        asked = await ask_for_seat(first)
        # What one page decides is nothing to the other.
        await second.send("tool_approval_decision", call_id=asked["call_id"], approve=True)
        await second.send("message", text="Thank you")
        await second.says("You are welcome.")
        assert not {"handoff", "tool_start", "tool_approval_required"} & set(second.types())
        async with site.page("third") as third:
            assert await third.closed() == FULL
            assert "busy" in third.seen[0]["error"]
        async with site.page("first") as twin:
            assert await twin.closed() == TURNED_AWAY
            assert "in use" in twin.seen[0]["error"]
        await first.send("tool_approval_decision", call_id=asked["call_id"], approve=True)
        await first.says(BOOKED)


async def test_the_page_learns_that_the_model_is_gone(site: Site, page: Page) -> None:
    await page.send("message", text="Hello")
    await page.next("audio")
    await site.endpoint.aclose()
    assert await page.closed() in (ENDED, FAILED)
    await until(lambda: none_left(site))


async def test_the_page_learns_that_the_model_cannot_be_reached() -> None:
    with listen("127.0.0.1", 0) as nobody:
        url = origin_of(nobody).replace("http", "ws")
    async with (
        site_of({"url": url, "api_key": "offline"}, AsyncExitStack()) as site,
        site.page() as page,
    ):
        assert await page.closed() == FAILED
        assert page.types() == ["error"]
        assert site.desk.sessions == 0


async def test_the_server_takes_open_conversations_with_it() -> None:
    async with AsyncExitStack() as endpoint:
        config = await open_to(endpoint)
        async with AsyncExitStack() as stack:
            site = await stack.enter_async_context(site_of(config, endpoint))
            page = await endpoint.enter_async_context(site.page())
            await page.send("message", text="Hello")
            await page.next("audio")
            closing = asyncio.create_task(stack.aclose())
            assert await page.closed() == 1012
            await closing
        assert await none_left(site)
