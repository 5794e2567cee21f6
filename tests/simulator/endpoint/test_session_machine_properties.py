"""Whatever a client does: one active response at most, every event in a legal order, every copy of a text the same."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.support import LOOKUP, Driver, Recorder, as_base64, loud, quiet

LOUD, QUIET = as_base64(loud(100)), as_base64(quiet(300))
TEXTS = ["first question", "look it up", "the third question", "something else", ""]

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
    "response.output_item.done": {
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

    def check(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            name = event["type"]
            if name == "response.created":
                self.created(event["response"])
            elif name == "response.done":
                self.done(event["response"])
            elif name.startswith("response."):
                assert event["response_id"] in self.running, f"{name} of a response that does not run"
                self.part(name, event)
            elif name.startswith("conversation.item."):
                self.chain(name, event)

    def created(self, response: Mapping[str, Any]) -> None:
        in_conversation = response["conversation_id"] is not None
        assert not (in_conversation and any(self.running.values())), "two active responses of the conversation"
        self.running[response["id"]] = in_conversation

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
            cut_short = name == "response.output_item.done" and event["item"]["status"] == "incomplete"
            assert before in PART_EVENTS[name] or (cut_short and before == "response.output_item.added"), (before, name)
        self.last[item_id] = name
        if name == "response.output_audio.delta":
            self.sound[item_id] += base64.b64decode(event["delta"])
        elif name.endswith(".delta"):
            self.spoken[item_id] += event["delta"]
        for key in ("text", "transcript", "arguments"):
            assert event.get(key, self.spoken[item_id]) == self.spoken[item_id]

    def chain(self, name: str, event: Mapping[str, Any]) -> None:
        if name == "conversation.item.added":
            item_id, previous = event["item"]["id"], event["previous_item_id"]
            assert item_id not in self.conversation
            index = 0 if previous is None else self.conversation.index(previous) + 1
            self.conversation.insert(index, item_id)
        elif name == "conversation.item.deleted":
            self.conversation.remove(event["item_id"])


SERVER_VAD = {"type": "server_vad"}
UPDATES: dict[str, dict[str, Any]] = {
    "manual": {"audio": {"input": {"turn_detection": None}}},
    "vad": {"audio": {"input": {"turn_detection": SERVER_VAD}}},
    "no interrupt": {"audio": {"input": {"turn_detection": {**SERVER_VAD, "interrupt_response": False}}}},
    "no create": {"audio": {"input": {"turn_detection": {**SERVER_VAD, "create_response": False}}}},
    "mulaw": {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}},
    "pcm": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}},
    "text": {"output_modalities": ["text"]},
    "audio": {"output_modalities": ["audio"]},
}
STEP = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 0.5, 2.0])),
    st.tuples(st.just("append"), st.sampled_from([LOUD, QUIET, QUIET, "", "?"])),
    st.tuples(st.just("say"), st.sampled_from(TEXTS)),
    st.tuples(st.just("create"), st.sampled_from(["", "none", "text"])),
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("truncate"), st.integers(0, 1500)),
    st.tuples(st.just("delete"), st.integers(0, 5)),
    st.tuples(st.just("output"), st.sampled_from(["{}", '{"value":1}', "text"])),
    st.tuples(
        st.just("update"), st.sampled_from(["manual", "vad", "no interrupt", "no create", "mulaw", "pcm", "text", "audio"])
    ),
    st.tuples(st.just("buffer"), st.sampled_from(["commit", "clear"])),
    st.tuples(st.just("raw"), st.sampled_from([b"", b"{", b"[]", b'{"type":"x"}', b'{"type":"response.create","response":5}'])),
)


def take(driver: Driver, step: tuple[str, Any]) -> None:
    kind, value = step
    if kind == "wait":
        driver.wait(value)
    elif kind == "append":
        driver.send("input_audio_buffer.append", audio=value)
    elif kind == "say":
        driver.say(value)
    elif kind == "create":
        response = {"none": {"conversation": "none", "input": []}, "text": {"output_modalities": ["text"]}}.get(value)
        driver.send("response.create", **({"response": response} if response else {}))
    elif kind == "cancel":
        running = [event["response"]["id"] for event in driver.events if event["type"] == "response.created"]
        driver.send("response.cancel", **({"response_id": running[-1]} if value and running else {}))
    elif kind == "buffer":
        driver.send(f"input_audio_buffer.{value}")
    elif kind == "raw":
        driver.send_raw(value)
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
    elif kind == "delete":
        item_id = items[value % len(items)]["id"] if items else "item_none"
        driver.send("conversation.item.delete", item_id=item_id)
    else:
        spoken = [item["id"] for item in items if item.get("role") == "assistant"] or ["item_none"]
        driver.send("conversation.item.truncate", item_id=spoken[-1], content_index=0, audio_end_ms=value)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=40))
def test_every_session_is_legal(recorder: Recorder, steps: list[tuple[str, Any]]) -> None:
    driver = Driver(recorder)
    driver.update(tools=[LOOKUP])
    for step in steps:
        take(driver, step)
    driver.run()
    judge = Judge()
    judge.check(driver.events)
    assert judge.running == {}, "a response without an end"
    assert judge.conversation == [memory.id for memory in driver.machine._conversation]
    ids = [event["event_id"] for event in driver.events]
    assert len(set(ids)) == len(ids)
    recorder.judge()
    recorder.frames.clear()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=25))
def test_the_same_steps_give_the_same_frames_byte_for_byte(recorder: Recorder, steps: list[tuple[str, Any]]) -> None:
    runs: list[list[bytes]] = []
    for _ in range(2):
        frames: list[bytes] = []
        driver = Driver(frames.append)
        for step in steps:
            take(driver, step)
        driver.run()
        runs.append(frames)
    assert runs[0] == runs[1]
    recorder.frames += runs[0]
    recorder.judge()
    recorder.frames.clear()
