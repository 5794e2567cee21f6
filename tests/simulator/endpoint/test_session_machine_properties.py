"""Whatever a client does, and whatever a caller says on the phone: one active response at most, every event in a legal order.

Every copy of a text is the same, the conversation is what its events say, playback is reported whole, and time never falls.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import LOOKUP, Driver, Recorder, loud, quiet

SCENARIO = parse_scenario(
    """
name: anything
mcp: {house: {seconds: 0.2, tools: [{name: find, output: found, seconds: 0.1}, {name: burn, error: {message: Never}}]}}
greeting: {do: [{say: "Welcome to the test."}]}
turns:
  - heard: first question
    do: [{say: "The first answer has quite a few words in it."}]
  - heard: look it up
    match: look
    do: [{call: lookup, arguments: {key: "{heard}"}}, {say: "It is {tool.output.value}."}]
  - heard: find it
    do: [{say: Wait.}, {call: find, server: house}, {say: "{tool.output}"}, {call: burn, server: house}]
  - heard: the third question
    transcription: {}
    do: [{say: "Third."}, {say: "Two messages."}]
  - heard: break
    do: [{say: "This will not end well."}]
    end: {status: failed, code: server_error, after: 2}
idle: {do: [{say: "Still there?"}]}
default: {do: [{say: "I do not know."}]}
repeat: true
"""
)
LOUD, QUIET = loud(100), quiet(300)
TEXTS = ["first question", "look it up", "find it", "the third question", "break", "something else", ""]
HOUSE = {"type": "mcp", "server_label": "house", "server_url": "https://example.com", "require_approval": "never"}

# What may follow what, for the events of one output item of one response.
PART_EVENTS = {
    "response.content_part.added": {"response.output_item.added"},
    "response.output_text.delta": {"response.content_part.added", "response.output_text.delta"},
    "response.output_text.done": {"response.content_part.added", "response.output_text.delta"},
    "response.output_audio_transcript.delta": {
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
    },
    "response.output_audio.delta": {"response.output_audio_transcript.delta", "response.output_audio.delta"},
    "response.output_audio.done": {
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
    },
    "response.output_audio_transcript.done": {"response.output_audio.done"},
    "response.content_part.done": {"response.output_text.done", "response.output_audio_transcript.done"},
    "response.function_call_arguments.delta": {"response.output_item.added", "response.function_call_arguments.delta"},
    "response.function_call_arguments.done": {"response.function_call_arguments.delta"},
    "response.mcp_call_arguments.delta": {"response.output_item.added", "response.mcp_call_arguments.delta"},
    "response.mcp_call_arguments.done": {"response.mcp_call_arguments.delta"},
    "response.mcp_call.in_progress": {"response.mcp_call_arguments.done"},
    "response.mcp_call.completed": {"response.mcp_call.in_progress"},
    "response.mcp_call.failed": {"response.mcp_call.in_progress"},
    "response.output_item.done": {
        "response.mcp_call_arguments.delta",
        "response.mcp_call.completed",
        "response.mcp_call.failed",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    },
}


def item_id_of(event: Mapping[str, Any]) -> str:
    return str(event["item_id"] if "item_id" in event else event["item"]["id"])


class Judge:
    """Checks a whole session, event by event."""

    def __init__(self) -> None:
        self.running: dict[str, bool] = {}
        self.last: dict[str, str] = {}
        self.spoken: dict[str, str] = {}
        self.sound: dict[str, bytes] = {}
        self.conversation: list[str] = []
        self.asides: set[str] = set()
        self.playing: set[str] = set()
        self.played: set[str] = set()

    def check(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            name = event["type"]
            if name == "response.created":
                self.created(event["response"])
            elif name == "response.done":
                self.done(event["response"])
            elif name.startswith("response."):
                if not name.startswith("response.mcp_call."):
                    assert event["response_id"] in self.running, f"{name} of a response that does not run"
                self.part(name, event)
            elif name.startswith("output_audio_buffer."):
                self.playback(name, event["response_id"])
            elif name.startswith("conversation.item."):
                self.chain(name, event)

    def created(self, response: Mapping[str, Any]) -> None:
        in_conversation = response["conversation_id"] is not None
        assert not (in_conversation and any(self.running.values())), "two active responses of the conversation"
        self.running[response["id"]] = in_conversation
        if not in_conversation:
            self.asides.add(response["id"])

    def done(self, response: Mapping[str, Any]) -> None:
        del self.running[response["id"]]
        for item in response["output"]:
            assert self.last[item["id"]] == "response.output_item.done"
            for part in item.get("content", []):
                assert part.get("text", part.get("transcript")) == self.spoken[item["id"]]
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    def part(self, name: str, event: Mapping[str, Any]) -> None:
        item_id = item_id_of(event)
        if name == "response.output_item.added":
            assert item_id not in self.last
            self.spoken[item_id], self.sound[item_id] = "", b""
        else:
            before = self.last[item_id]
            # An item that was cut short may have nothing in it; an MCP item does not say, and a request never has.
            empty = name == "response.output_item.done" and event["item"].get("status") != "completed"
            assert before in PART_EVENTS[name] or (empty and before == "response.output_item.added"), (before, name)
        self.last[item_id] = name
        if name == "response.output_audio.delta":
            self.sound[item_id] += base64.b64decode(event["delta"])
        elif name.endswith(".delta"):
            self.spoken[item_id] += event["delta"]
        for key in ("text", "transcript", "arguments"):
            assert event.get(key, self.spoken[item_id]) == self.spoken[item_id]

    def playback(self, name: str, response_id: str) -> None:
        """One response of the conversation is heard at a time; each starts once, and ends once."""
        if name == "output_audio_buffer.started":
            assert response_id in self.asides or self.playing <= self.asides
            assert response_id not in self.played
            self.playing.add(response_id)
            self.played.add(response_id)
        else:
            self.playing.remove(response_id)

    def chain(self, name: str, event: Mapping[str, Any]) -> None:
        if name == "conversation.item.added":
            item_id, previous = event["item"]["id"], event["previous_item_id"]
            assert item_id not in self.conversation
            index = 0 if previous is None else self.conversation.index(previous) + 1
            self.conversation.insert(index, item_id)
        elif name == "conversation.item.deleted":
            self.conversation.remove(event["item_id"])
        elif name == "conversation.item.truncated":
            heard = event["audio_end_ms"]
            # At most what was generated, in the slowest of the formats.
            assert 0 <= heard <= len(self.sound[event["item_id"]]) / 8


SERVER_VAD = {"type": "server_vad"}
UPDATES: dict[str, dict[str, Any]] = {
    "manual": {"audio": {"input": {"turn_detection": None}}},
    "vad": {"audio": {"input": {"turn_detection": SERVER_VAD}}},
    "idle": {"audio": {"input": {"turn_detection": {**SERVER_VAD, "idle_timeout_ms": 5000}}}},
    "no interrupt": {"audio": {"input": {"turn_detection": {**SERVER_VAD, "interrupt_response": False}}}},
    "no create": {"audio": {"input": {"turn_detection": {**SERVER_VAD, "create_response": False}}}},
    "semantic": {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}},
    "mulaw": {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}},
    "pcm": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}},
    "text": {"output_modalities": ["text"]},
    "audio": {"output_modalities": ["audio"]},
    "whisper": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
    "live": {"audio": {"input": {"transcription": {"model": "gpt-live-transcribe"}}}},
    "house": {"tools": [LOOKUP, HOUSE]},
    "ask": {"tools": [LOOKUP, {**HOUSE, "require_approval": "always"}]},
    "required": {"tool_choice": "required"},
    "none": {"tool_choice": "none"},
    "short": {"max_output_tokens": 8},
    "disabled": {"truncation": "disabled"},
    "ratio": {"truncation": {"type": "retention_ratio", "retention_ratio": 0.5}},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "": {},
    "none": {"conversation": "none", "input": []},
    "text": {"output_modalities": ["text"]},
    "aside": {"conversation": "none", "instructions": "find it", "output_modalities": ["text"]},
    "forced": {"tool_choice": {"type": "function", "name": "lookup"}, "parallel_tool_calls": False},
}
RAW = [b"", b"{", b"[]", b'{"type":"x"}', b'{"type":"response.create","response":5}', b'{"type":"output_audio_buffer.clear"}']
STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 0.5, 2.0, 6.0])),
    st.tuples(st.just("append"), st.sampled_from([LOUD, QUIET, QUIET, b""])),
    st.tuples(st.just("say"), st.sampled_from(TEXTS)),
    st.tuples(st.just("create"), st.sampled_from(list(RESPONSES))),
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("truncate"), st.integers(0, 1500)),
    st.tuples(st.just("delete"), st.integers(0, 5)),
    st.tuples(st.just("retrieve"), st.integers(0, 5)),
    st.tuples(st.just("output"), st.sampled_from(["{}", '{"value":1}', "text"])),
    st.tuples(st.just("decide"), st.booleans()),
    st.tuples(st.just("update"), st.sampled_from(list(UPDATES))),
    st.tuples(st.just("buffer"), st.sampled_from(["input_audio_buffer.commit", "input_audio_buffer.clear"])),
    st.tuples(st.just("recognize"), st.sampled_from([*TEXTS, None])),
    st.tuples(st.just("phone"), st.sampled_from(["clear", "dtmf", "attach"])),
    st.tuples(st.just("raw"), st.sampled_from(RAW)),
)


def take(driver: Driver, step: tuple[str, Any], *, in_call: bool) -> None:
    kind, value = step
    if kind == "wait":
        driver.wait(value)
    elif kind == "append":
        if in_call and value:
            driver.hear(value)
        else:
            driver.append(value)
    elif kind == "say":
        driver.say(value)
    elif kind == "create":
        driver.send("response.create", response=RESPONSES[value])
    elif kind == "cancel":
        running = [event["response"]["id"] for event in driver.events if event["type"] == "response.created"]
        driver.send("response.cancel", **({"response_id": running[-1]} if value and running else {}))
    elif kind == "buffer":
        driver.send(value)
    elif kind == "raw":
        driver.send_raw(value)
    elif kind == "recognize":
        if driver.unheard:
            driver.recognize(value, random.Random(len(driver.events)).randrange(len(driver.unheard)))
    elif kind == "phone":
        if value == "clear":
            driver.send("output_audio_buffer.clear")
        elif value == "dtmf":
            driver.dtmf("#")
        else:
            driver.attach()
    else:
        take_with_items(driver, kind, value)


def take_with_items(driver: Driver, kind: str, value: Any) -> None:
    items = [event["item"] for event in driver.events if event["type"] == "conversation.item.added"]
    if kind == "update":
        driver.update(**UPDATES[value])
    elif kind == "output":
        calls = [item["call_id"] for item in items if item["type"] == "function_call"] or ["call_none"]
        item = {"type": "function_call_output", "call_id": calls[-1], "output": value}
        driver.send("conversation.item.create", item=item)
    elif kind == "decide":
        requests = [item["id"] for item in items if item["type"] == "mcp_approval_request"] or ["item_none"]
        item = {"type": "mcp_approval_response", "approval_request_id": requests[-1], "approve": value}
        driver.send("conversation.item.create", item=item)
    elif kind in ("delete", "retrieve"):
        item_id = items[value % len(items)]["id"] if items else "item_none"
        driver.send(f"conversation.item.{kind}", item_id=item_id)
    else:
        spoken = [item["id"] for item in items if item.get("role") == "assistant"] or ["item_none"]
        driver.send("conversation.item.truncate", item_id=spoken[-1], content_index=0, audio_end_ms=value)


def play(driver: Driver, steps: Sequence[tuple[str, Any]], *, in_call: bool) -> None:
    """Take the steps, hear out what is still unheard, and let all that goes on end."""
    driver.update(tools=[LOOKUP])
    for step in steps:
        before = driver.machine._state.timeline.now
        take(driver, step, in_call=in_call)
        timeline = driver.machine._state.timeline
        assert before <= timeline.now <= driver.now
        assert timeline.due is None or timeline.due >= timeline.now
    # The idle timeout would go on for ever.
    driver.update(audio={"input": {"turn_detection": None}})
    while driver.unheard:
        driver.recognize(None)
    driver.run()


WORLDS = st.sampled_from([(False, False), (False, True), (True, False), (True, True)])
"""On a socket or in a call, and whether somebody recognises the words."""


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=40), WORLDS)
def test_every_session_is_legal(recorder: Recorder, steps: list[tuple[str, Any]], world: tuple[bool, bool]) -> None:
    in_call, recognition = world
    options = ModelOptions(recognition=recognition, transcription_jitter=0.5, approval_continues=in_call, context_tokens=600)
    driver = Driver(recorder, SCENARIO, options, in_call=in_call)
    play(driver, steps, in_call=in_call)
    judge = Judge()
    judge.check(driver.events)
    assert judge.running == {}, "a response without an end"
    assert judge.playing == set(), "playback without an end"
    assert in_call or not judge.played
    assert judge.conversation == [memory.id for memory in driver.machine._state.conversation]
    ids = [event["event_id"] for event in driver.events]
    assert len(set(ids)) == len(ids)
    recorder.judge()
    recorder.frames.clear()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=25), WORLDS)
def test_the_same_steps_give_the_same_frames_byte_for_byte(
    recorder: Recorder, steps: list[tuple[str, Any]], world: tuple[bool, bool]
) -> None:
    in_call, recognition = world
    runs: list[list[bytes]] = []
    for _ in range(2):
        frames: list[bytes] = []
        options = ModelOptions(recognition=recognition, transcription_jitter=0.5)
        play(Driver(frames.append, SCENARIO, options, in_call=in_call), steps, in_call=in_call)
        runs.append(frames)
    assert runs[0] == runs[1]
    recorder.frames += runs[0]
    recorder.judge()
    recorder.frames.clear()
