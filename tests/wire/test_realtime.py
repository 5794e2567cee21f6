"""The codec of the Realtime protocol: what decodes, what it encodes to, and what is refused how."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.errors import WireError
from orchestrator.wire import realtime as wire

HERE = Path(__file__).parent
CANONICAL = (HERE / "canonical_frames.jsonl").read_bytes().splitlines()
SERVER = (HERE / "server_events.jsonl").read_bytes().splitlines()
CLIENT = (HERE / "client_events.jsonl").read_bytes().splitlines()


def name(frame: bytes) -> str:
    return str(json.loads(frame)["type"])


def refusal(data: bytes, **options: bool) -> WireError:
    with pytest.raises(WireError) as caught:
        wire.decode_client_event(data, **options)
    return caught.value


# --- Every event ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", CANONICAL + SERVER, ids=name)
def test_a_server_event_encodes_to_what_it_was_decoded_from(frame: bytes) -> None:
    event = wire.decode_server_event(frame)
    assert not isinstance(event, wire.UnknownEvent)
    assert wire.event_type(event) == name(frame)
    assert json.loads(wire.encode(event)) == json.loads(frame)


@pytest.mark.parametrize("frame", CLIENT, ids=name)
def test_a_client_event_encodes_to_what_it_was_decoded_from(frame: bytes) -> None:
    event = wire.decode_client_event(frame, forbid_unknown=True)
    assert not isinstance(event, wire.UnknownEvent)
    assert wire.event_type(event) == name(frame)
    assert json.loads(wire.encode(event)) == json.loads(frame)


def test_there_are_46_server_and_11_client_events_and_a_sample_of_each() -> None:
    assert len(wire.SERVER_EVENTS) == 46
    assert {name(frame) for frame in SERVER} == set(wire.SERVER_EVENTS)
    assert len(wire.CLIENT_EVENTS) == 11
    assert {name(frame) for frame in CLIENT} == set(wire.CLIENT_EVENTS)


@pytest.mark.parametrize(("tag", "cls"), [*wire.SERVER_EVENTS.items(), *wire.CLIENT_EVENTS.items()])
def test_a_class_has_the_name_of_its_wire_type(tag: str, cls: type) -> None:
    words = tag.replace(".", "_").split("_")
    assert cls.__name__ == ("ErrorEvent" if tag == "error" else "".join(word.capitalize() for word in words))
    assert getattr(wire, cls.__name__) is cls
    assert cls.__name__ in wire.__all__


@pytest.mark.parametrize("frame", CANONICAL + SERVER, ids=name)
def test_a_server_event_starts_with_its_type_and_its_id_and_has_no_spaces(frame: bytes) -> None:
    encoded = wire.encode(wire.decode_server_event(frame))
    assert list(json.loads(encoded))[:2] == list(json.loads(frame))[:2]
    assert encoded.startswith(b'{"type":"')
    assert json.dumps(json.loads(encoded), separators=(",", ":"), ensure_ascii=False).encode() == encoded


def test_the_sample_frames_hold_every_member_of_every_struct() -> None:
    """Or a member that is misspelt would not show."""
    seen: dict[type, set[str]] = {}

    def visit(value: Any) -> None:
        if isinstance(value, msgspec.Struct):
            fields = seen.setdefault(type(value), set())
            for field in value.__struct_fields__:
                member = getattr(value, field)
                if member is not msgspec.UNSET:
                    fields.add(field)
                    visit(member)
        elif isinstance(value, list | tuple):
            for member in value:
                visit(member)

    for frame in CANONICAL + SERVER:
        visit(wire.decode_server_event(frame))
    for frame in CLIENT:
        visit(wire.decode_client_event(frame))
    structs = {value for value in vars(wire).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)}
    # A reference to an item is missing in the official client's own type of the event, which judges the samples.
    visit(wire.ItemReference(id="item_U1"))
    structs -= {wire.UnknownEvent, wire.UnknownObject}
    # `status` and `object` are said of every item, but were never seen on those of MCP.
    unseen = {cls.__name__: set(cls.__struct_fields__) - seen.get(cls, set()) for cls in structs}
    assert {cls: fields - {"status", "object"} for cls, fields in unseen.items() if fields - {"status", "object"}} == {
        "InputAudioBufferDtmfEventReceived": {"event_id"}
    }


def test_an_unset_member_is_left_out_and_a_null_one_is_not() -> None:
    update = wire.SessionUpdate(session=wire.RealtimeSessionConfig(instructions="", prompt=None))
    assert wire.encode(update) == b'{"type":"session.update","session":{"type":"realtime","instructions":"","prompt":null}}'


def test_a_server_may_leave_out_what_no_client_acts_upon() -> None:
    frame = b'{"type":"response.output_audio.delta","response_id":"resp_R1","item_id":"item_A1","delta":"AAAA","new":{"a":[1]}}'
    event = wire.decode_server_event(frame)
    assert event == wire.ResponseOutputAudioDelta(response_id="resp_R1", item_id="item_A1", delta="AAAA")


def test_a_server_may_use_names_that_are_new_to_us() -> None:
    body = json.loads(next(frame for frame in SERVER if name(frame) == "session.created"))
    body["session"]["model"] = "gpt-realtime-9"
    body["session"]["audio"]["output"]["voice"] = "nova"
    body["session"]["audio"]["input"]["format"] = {"type": "audio/opus", "rate": 48000}
    event = wire.decode_server_event(json.dumps(body).encode())
    assert isinstance(event, wire.SessionCreated)
    assert json.loads(wire.encode(event)) == body


# --- Unknown things of a server ---------------------------------------------------------------------------------------


def test_an_event_of_unknown_type_is_kept_raw() -> None:
    frame = b'{ "type" : "response.video.delta", "delta": "AAAA" }'
    event = wire.decode_server_event(frame)
    assert event == wire.UnknownEvent("response.video.delta", frame)
    assert wire.encode(event) == frame
    assert wire.event_type(event) == "response.video.delta"


def test_a_response_survives_items_and_parts_of_unknown_kind() -> None:
    new_item = {"id": "item_X1", "type": "computer_call", "action": {"type": "click"}}
    new_part = {"type": "output_video", "frames": [1, 2]}
    body = json.loads(next(frame for frame in SERVER if name(frame) == "response.done"))
    message = {
        "type": "message",
        "id": "item_A1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "x"}, new_part],
    }
    body["response"]["output"] = [new_item, message]
    event = wire.decode_server_event(json.dumps(body).encode())
    assert isinstance(event, wire.ResponseDone)
    item, known = event.response.output
    assert isinstance(item, wire.UnknownObject)
    assert (item.type, item.id, item.body["action"]) == ("computer_call", "item_X1", {"type": "click"})
    assert isinstance(known, wire.MessageItem)
    assert isinstance(known.content[1], wire.UnknownObject)
    assert known.content[1].id is None
    assert json.loads(wire.encode(event)) == body


@pytest.mark.parametrize(
    ("tag", "path", "value"),
    [
        ("conversation.item.added", ("item",), {"type": "new", "id": "item_1"}),
        ("conversation.item.added", ("item",), {"id": "item_1"}),
        ("conversation.item.added", ("item",), {"type": "message", "role": "user"}),
        ("conversation.item.added", ("item",), {"type": "message", "content": [{"type": "new"}, {"text": "no type"}]}),
        ("conversation.item.added", ("item", "content", 0), {"type": "input_text", "text": 5}),
        ("response.content_part.done", ("part",), {"type": "video"}),
        ("session.created", ("session", "audio", "input", "turn_detection"), {"type": "smart_vad", "level": 3}),
        ("session.updated", ("session", "tools", 1), {"type": "web_search"}),
        ("session.updated", ("session", "tool_choice"), {"type": "allowed_tools", "tools": []}),
        ("session.updated", ("session", "truncation"), {"type": "summary"}),
        ("conversation.item.input_audio_transcription.completed", ("usage",), {"type": "words", "words": 4}),
    ],
)
def test_an_unknown_object_takes_the_place_of_what_does_not_fit(tag: str, path: tuple[str | int, ...], value: Any) -> None:
    body = json.loads(next(frame for frame in SERVER if name(frame) == tag))
    place: Any = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    event = wire.decode_server_event(json.dumps(body).encode())
    found: Any = event
    for key in path:
        found = found[key] if isinstance(key, int) else getattr(found, key)
    assert isinstance(found, wire.UnknownObject)
    assert found.type == value.get("type", "")
    assert json.loads(wire.encode(event)) == body


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (b'{"type":"response.done","response":{"id":"resp_R1"}}', "Missing required parameter: 'response.status'."),
        (
            b'{"type":"response.done","response":7}',
            "Invalid type for 'response': expected an object, but got an integer instead.",
        ),
        (
            b'{"type":"conversation.item.added","item":[]}',
            "Invalid type for 'item': expected an object, but got an array instead.",
        ),
        (b'{"type":"session.created","session":{"model":"x"}}', "Missing required parameter: 'session.type'."),
        (
            b'{"type":"rate_limits.updated","rate_limits":{}}',
            "Invalid type for 'rate_limits': expected an array, but got an object",
        ),
    ],
)
def test_a_known_event_that_cannot_be_repaired_is_kept_raw_and_says_why(frame: bytes, detail: str) -> None:
    event = wire.decode_server_event(frame)
    assert isinstance(event, wire.UnknownEvent)
    assert event.raw == frame
    assert event.detail is not None
    assert event.detail.startswith(detail)


def test_an_event_that_needs_too_many_repairs_is_kept_raw() -> None:
    output = [{"type": "new"}] * 100
    frame = json.dumps({"type": "response.done", "response": {"id": "r", "status": "completed", "output": output}}).encode()
    event = wire.decode_server_event(frame)
    assert isinstance(event, wire.UnknownEvent)
    assert event.detail == "too many members do not fit"


def test_an_event_that_is_too_deep_to_be_repaired_is_kept_raw() -> None:
    frame = b'{"type":"conversation.item.added","item":{"type":"new","x":' + b"[" * 200 + b"]" * 200 + b"}}"
    assert wire.decode_server_event(frame) == wire.UnknownEvent(
        "conversation.item.added", frame, "nested too deep to be repaired"
    )


def test_a_server_that_makes_up_our_own_mark_gets_nowhere() -> None:
    body = {"type": "conversation.item.added", "item": {"type": "~unknown", "body": {"type": "message"}}}
    event = wire.decode_server_event(json.dumps(body).encode())
    assert isinstance(event, wire.ConversationItemAdded)
    assert isinstance(event.item, wire.UnknownObject)
    assert event.item.type == "~unknown"
    assert json.loads(wire.encode(event))["item"] == body["item"]


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"nope", "invalid_json", None),
        (b'{"type":"response.cancel"', "invalid_json", None),
        (b'{"type":"response.cancel"}}', "invalid_json", None),
        (b'{"type":"nope","x":}', "invalid_json", None),
        (b'{"type":"error","event_id":"\xff"}', "invalid_json", None),
        (b'{"type":"response.cancel","event_id":"\xff"}', "invalid_json", None),
        (b'{"type":"\xff"}', "invalid_json", None),
        (b'{"type":"nope","x":"\xff"}', "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"type":"response.cancel","x":' + b"[" * 100_000, "invalid_json", None),
        (b'{"a":' * 100_000, "invalid_json", None),
        (b'{"type":' + b"[" * 100_000, "invalid_json", None),
        (b"[]", "invalid_event", None),
        (b"null", "invalid_event", None),
        (b'"response.cancel"', "invalid_event", None),
        (b"{}", "missing_required_parameter", "type"),
        (b'{"type":null}', "invalid_type", "type"),
        (b'{"type":["response.cancel"]}', "invalid_type", "type"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_event_is_an_error_in_both_directions(data: bytes, code: str, param: str | None) -> None:
    for decode in (wire.decode_client_event, wire.decode_server_event):
        with pytest.raises(WireError) as caught:
            decode(data)
        assert (caught.value.wire_code, caught.value.param) == (code, param)
        assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("data", "code", "param", "message"),
    [
        (
            b'{"type":"session.update","session":{"instructions":"x"}}',
            "missing_required_parameter",
            "session.type",
            "Missing required parameter: 'session.type'.",
        ),
        (
            b'{"type":"session.update"}',
            "missing_required_parameter",
            "session",
            "Missing required parameter: 'session'.",
        ),
        (
            b'{"type":"session.update","session":{"type":"video"}}',
            "invalid_value",
            "session.type",
            "Invalid value: 'video'. Supported values are: 'realtime' and 'transcription'.",
        ),
        (
            b'{"type":"session.update","session":{"type":"realtime","audio":{"output":{"speed":"fast"}}}}',
            "invalid_type",
            "session.audio.output.speed",
            "Invalid type for 'session.audio.output.speed': expected one of a decimal or null, but got a string instead.",
        ),
        (
            b'{"type":"input_audio_buffer.append","audio":7}',
            "invalid_type",
            "audio",
            "Invalid type for 'audio': expected a string, but got an integer instead.",
        ),
        (
            b'{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text"}]}}',
            "missing_required_parameter",
            "item.content[0].text",
            "Missing required parameter: 'item.content[0].text'.",
        ),
        (
            b'{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"video"}]}}',
            "invalid_value",
            "item.content[0].type",
            (
                "Invalid value: 'video'. Supported values are: 'input_text', 'input_audio', 'input_image', 'output_text', and "
                "'output_audio'."
            ),
        ),
        (
            b'{"type":"response.create","response":{"tools":[{"type":"function"}]}}',
            "missing_required_parameter",
            "response.tools[0].name",
            "Missing required parameter: 'response.tools[0].name'.",
        ),
        (
            b'{"type":"response.create","response":{"metadata":{"k":5}}}',
            "invalid_type",
            "response.metadata",
            "Invalid type for 'response.metadata': expected a string, but got an integer instead.",
        ),
        (
            b'{"type":"response.cancel","event_id":"' + b"x" * 513 + b'"}',
            "string_above_max_length",
            "event_id",
            "Invalid 'event_id': string too long. Expected a string with maximum length 512.",
        ),
        (
            b'{"type":"conversation.item.truncate","item_id":"item_A1","content_index":0,"audio_end_ms":1.5}',
            "invalid_type",
            "audio_end_ms",
            "Invalid type for 'audio_end_ms': expected an integer, but got a decimal instead.",
        ),
        (
            b'{"type":"conversation.item.truncate","item_id":"item_A1","content_index":0,"audio_end_ms":1e999}',
            "invalid_value",
            "audio_end_ms",
            "Invalid value for 'audio_end_ms': Number out of range.",
        ),
    ],
)
def test_a_malformed_client_event_is_refused_as_the_api_refuses_it(data: bytes, code: str, param: str, message: str) -> None:
    error = refusal(data)
    assert (error.wire_code, error.param, error.message) == (code, param, message)


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"conversation.item.create","item":{"type":"~unknown","body":{"type":"message"}}}',
        b'{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"~unknown","body":{}}]}}',
        b'{"type":"session.update","session":{"type":"realtime","tools":[{"type":"~unknown","body":{"type":"mcp"}}]}}',
    ],
)
def test_a_client_cannot_send_an_unknown_object(data: bytes) -> None:
    assert refusal(data).wire_code in {"invalid_value", "invalid_type"}


def test_a_client_event_of_unknown_type_is_kept_raw() -> None:
    frame = b'{"type":"transcription_session.update","session":{}}'
    assert wire.decode_client_event(frame, forbid_unknown=True) == wire.UnknownEvent("transcription_session.update", frame)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"type":"response.cancel","reason":"x"}', "reason"),
        (b'{"type":"session.update","session":{"type":"realtime","modalities":["text"]}}', "session.modalities"),
        (b'{"type":"session.update","session":{"type":"realtime","tools":[{"type":"function","name":"f","strict":true}]}}',
         "session.tools[0].strict"),
        (b'{"type":"session.update","session":{"type":"transcription","audio":{"output":{}}}}', "session.audio.output"),
    ],
)  # fmt: skip
def test_a_member_that_the_api_lacks_is_refused_only_on_request(data: bytes, param: str) -> None:
    assert not isinstance(wire.decode_client_event(data), wire.UnknownEvent)
    error = refusal(data, forbid_unknown=True)
    assert (error.wire_code, error.param) == ("unknown_parameter", param)
    assert error.message == f"Unknown parameter: '{param}'."


def test_what_is_dropped_must_still_be_json_in_utf_8_when_it_is_looked_at() -> None:
    for data in (b'{"type":"response.cancel","\x80":1}', b'{"type":"response.cancel","x":1e999}'):
        assert wire.decode_client_event(data) == wire.ResponseCancel()
        assert refusal(data, forbid_unknown=True).wire_code == "invalid_json"


def test_free_form_objects_may_hold_any_member() -> None:
    schema = b'{"type":"object","x-anything":[{"deep":[null]}]}'
    tool = b'{"type":"function","name":"f","parameters":' + schema + b"}"
    frame = b'{"type":"session.update","session":{"type":"realtime","tools":[' + tool + b"]}}"
    event = wire.decode_client_event(frame, forbid_unknown=True)
    assert json.loads(wire.encode(event)) == json.loads(frame)


def test_a_long_value_is_not_repeated_whole_in_the_error() -> None:
    error = refusal(b'{"type":"session.update","session":{"type":"' + b"x" * 1_000_000 + b'"}}')
    assert len(error.message) < 300


# --- Encoding ---------------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    """A tool's output may hold one: it is how Python reads a file name that is not UTF-8."""
    item = wire.FunctionCallOutputItem(call_id="call_1", output="a\ud83d\ude00b\udcff")
    encoded = wire.encode(wire.ConversationItemCreate(item=item))
    assert json.loads(encoded)["item"] == {"type": "function_call_output", "call_id": "call_1", "output": "a😀b\ufffd"}


def test_an_appended_frame_equals_the_encoded_event() -> None:
    payload = base64.b64encode(bytes(range(256))).decode()
    assert wire.append_frame(payload) == wire.encode(wire.InputAudioBufferAppend(audio=payload))


def test_the_text_form_of_an_mcp_tool_shows_no_secret() -> None:
    tool = wire.McpTool(server_label="mail", authorization="hunter2", headers={"authorization": "hunter3"})
    assert "hunter" not in repr(wire.RealtimeSessionConfig(tools=[tool]))
    assert "mail" in repr(tool)


def test_the_facade_offers_each_name_once() -> None:
    assert len(wire.__all__) == len(set(wire.__all__))
    assert all(hasattr(wire, public) for public in wire.__all__)
