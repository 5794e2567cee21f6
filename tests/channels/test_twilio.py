"""Phone calls over Media Streams, as the carrier would make them."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.telemetry import names

SID = "MZ00000000000000000000000000000001"
CALL_SID = "CA00000000000000000000000000000001"


def start(token: str, **changes: Any) -> dict[str, Any]:
    details: dict[str, Any] = {
        "streamSid": SID,
        "accountSid": "AC1",
        "callSid": CALL_SID,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": token, "language": "en"},
    }
    return {"event": "start", "sequenceNumber": "1", "streamSid": SID, "start": details | changes}


def media(payload: str = "fn5+", sid: str = SID) -> dict[str, Any]:
    return {"event": "media", "sequenceNumber": "3", "streamSid": sid, "media": {"track": "inbound", "payload": payload}}


async def dial(world: Any, *, started: bool = True) -> tuple[str, Any]:
    session_id, caller = await world.call("twilio")
    caller.send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
    if started:
        caller.send(start(world.tokens.issue(CALL_SID, time.time())))
    await world.settle()
    return session_id, caller


async def test_a_call_is_connected_in_the_carriers_own_codec(world: Any) -> None:
    session_id, _ = await dial(world)
    audio = world.endpoint.last("session.update")["session"]["audio"]
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcmu"}
    assert world.reporter.ups == [session_id]
    assert world.reporter.states == [(session_id, "connecting"), (session_id, "live")]


async def test_audio_passes_through_undecoded_in_both_directions(world: Any) -> None:
    _, caller = await dial(world)
    caller.send(media("AAEC/w=="))
    await world.settle()
    assert world.endpoint.received[-1] == {"type": "input_audio_buffer.append", "audio": "AAEC/w=="}
    world.endpoint.start_response()
    world.endpoint.speak("hello", 100)
    await world.settle()
    assert caller.of("media") == [{"event": "media", "streamSid": SID, "media": {"payload": world.endpoint.audio(100)}}]


async def test_what_the_caller_says_before_the_model_is_there_is_not_lost(world: Any) -> None:
    world.dial_delay = 2.0
    _, caller = await dial(world)
    for payload in ("AAAA", "AAEA", "AAIA"):
        caller.send(media(payload))
    await asyncio.sleep(2.1)
    await world.settle()
    appended = [event["audio"] for event in world.endpoint.received if event["type"] == "input_audio_buffer.append"]
    assert appended == ["AAAA", "AAEA", "AAIA"]


async def test_marks_drive_the_cursor_and_a_barge_in_clears_and_truncates_there(world: Any) -> None:
    session_id, caller = await dial(world)
    world.endpoint.start_response()
    for _ in range(5):
        world.endpoint.speak("one two ", 400)
    await world.settle()
    marks = [message["mark"]["name"] for message in caller.of("mark")]
    assert marks == ["0:400", "0:800", "0:1200", "0:1600", "0:2000"]
    # The carrier plays 300 ms late, as its marks show.
    await asyncio.sleep(0.7)
    caller.send({"event": "mark", "streamSid": SID, "mark": {"name": marks[0]}})
    await world.settle()
    await asyncio.sleep(0.1)
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    await world.settle()
    assert caller.types()[-1] == "clear"
    assert world.endpoint.last("conversation.item.truncate")["audio_end_ms"] == pytest.approx(500, abs=20)
    record = msgspec.json.decode(world.host.describe(session_id))
    (interruption,) = [entry for entry in record["entries"] if entry["kind"] == "interruption"]
    assert interruption["heard_ms"] == pytest.approx(500, abs=20)
    assert interruption["sent_ms"] == 2000.0
    assert interruption["transcript"].startswith("one two")
    assert len(record["timings"]["barge_in_to_clear_ms"]) == 1


async def test_marks_that_a_clear_throws_back_are_not_taken_for_playback(world: Any) -> None:
    _, caller = await dial(world)
    world.endpoint.start_response()
    world.endpoint.speak("one", 2000)
    await asyncio.sleep(0.2)
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    world.endpoint.end_response(status="cancelled")
    await world.settle()
    caller.send({"event": "mark", "streamSid": SID, "mark": {"name": "0:2000"}})
    await world.settle()
    world.endpoint.start_response("resp_2")
    world.endpoint.speak("two", 1000, response_id="resp_2", item_id="item_b")
    await asyncio.sleep(0.3)
    caller.send({"event": "mark", "streamSid": SID, "mark": {"name": "0:2000"}})
    caller.send({"event": "mark", "streamSid": SID, "mark": {"name": "not ours"}})
    await world.settle()
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    await world.settle()
    truncate = world.endpoint.last("conversation.item.truncate")
    assert truncate["item_id"] == "item_b"
    assert truncate["audio_end_ms"] == pytest.approx(310, abs=20)
    assert len(caller.of("clear")) == 2


async def test_a_tool_answers_and_its_context_knows_the_call(world: Any) -> None:
    session_id, _ = await dial(world)
    world.endpoint.call_tools(("call_1", "lookup_order", '{"order_id":"4711"}'))
    await asyncio.sleep(0.5)
    assert world.endpoint.last("conversation.item.create")["item"]["output"] == "order 4711 is on its way"
    record = msgspec.json.decode(world.host.describe(session_id))
    (tool,) = [entry for entry in record["entries"] if entry["kind"] == "tool"]
    assert (tool["name"], tool["ok"], tool["arguments"]) == ("lookup_order", True, '{"order_id":"4711"}')


async def test_the_carriers_stop_ends_the_call(world: Any) -> None:
    session_id, caller = await dial(world)
    caller.send({"event": "stop", "streamSid": SID, "stop": {"accountSid": "AC1", "callSid": CALL_SID}})
    await asyncio.sleep(0.1)
    assert world.reporter.ends[session_id].code == "caller_hung_up"
    assert world.endpoint.closed is not None
    assert caller.closed is not None
    assert world.reporter.states[-1] == (session_id, "ended")


async def test_a_caller_that_vanishes_is_lost_not_hung_up(world: Any) -> None:
    session_id, caller = await dial(world)
    caller.leg.abort(EndReason("test"))
    await asyncio.sleep(0.1)
    assert world.reporter.ends[session_id].code == "caller_lost"


@pytest.mark.parametrize(
    ("message", "close_code"),
    [
        (b"{not json", 1007),
        (b'{"event":"start"}', 1007),
        (msgspec.json.encode(media(sid="MZ_other")), 1008),
        (msgspec.json.encode(start("forged")), 1008),
        (msgspec.json.encode(start("x", mediaFormat={"encoding": "audio/l16", "sampleRate": 16000, "channels": 1})), 1003),
    ],
)
async def test_what_breaks_the_protocol_closes_the_stream_and_is_counted(world: Any, message: bytes, close_code: int) -> None:
    session_id, caller = await dial(world, started=False)
    caller.leg.send_text(message)
    await asyncio.sleep(0.1)
    assert caller.leg.close_code == close_code
    assert world.reporter.ends[session_id].code == "caller_protocol_error"
    assert [counter.name for counter in world.drain_metrics().counters if counter.name == names.WIRE_ERRORS_TOTAL]


async def test_a_token_opens_one_stream_only(world: Any) -> None:
    token = world.tokens.issue(CALL_SID, time.time())
    for expected in ("live", "caller_protocol_error"):
        session_id, caller = await world.call("twilio")
        caller.send(start(token))
        await asyncio.sleep(0.1)
        ended = world.reporter.ends.get(session_id)
        assert (ended.code if ended else world.reporter.states[-1][1]) == expected


async def test_unknown_events_are_counted_and_change_nothing(world: Any) -> None:
    session_id, caller = await dial(world)
    caller.send({"event": "brand_new", "streamSid": SID})
    caller.send({"event": "dtmf", "streamSid": SID, "dtmf": {"track": "inbound_track", "digit": "5"}})
    await world.settle()
    assert session_id not in world.reporter.ends
    counted = {counter.name: counter.value for counter in world.drain_metrics().counters}
    assert counted[names.WIRE_UNKNOWN_EVENTS_TOTAL] == 1


async def test_a_caller_that_never_starts_is_let_go(world: Any) -> None:
    session_id, caller = await dial(world, started=False)
    await asyncio.sleep(3.1)
    assert world.reporter.ends[session_id].code == "start_timeout"
    assert caller.leg.close_code == 1008


async def test_a_call_ends_when_it_has_lasted_as_long_as_it_may(world: Any) -> None:
    session_id, caller = await dial(world)
    await asyncio.sleep(4 * 3600 - 1)
    assert session_id not in world.reporter.ends
    await asyncio.sleep(2)
    assert world.reporter.ends[session_id].code == "max_duration"
    assert caller.leg.close_code == 1000


async def test_the_settings_and_the_address_name_one_model(world: Any) -> None:
    await dial(world)
    assert world.endpoint.url.endswith("?model=gpt-realtime")
    assert world.endpoint.last("session.update")["session"]["model"] == "gpt-realtime"


async def test_a_model_that_cannot_be_reached_ends_the_call_with_that_reason(world: Any) -> None:
    world.refuse_dial = LegConnectError("cannot connect to model:443: refused")
    session_id, caller = await dial(world)
    await asyncio.sleep(0.1)
    assert world.reporter.ends[session_id].code == "model_unavailable"
    assert caller.leg.close_code == 1011


async def test_a_model_that_is_lost_for_good_ends_the_call_with_that_reason(world: Any) -> None:
    session_id, caller = await dial(world)
    world.refuse_dial = LegConnectError("cannot connect to model:443: refused")
    world.endpoint.cut()
    await asyncio.sleep(1)
    assert session_id not in world.reporter.ends
    await asyncio.sleep(60)
    assert world.reporter.ends[session_id].code == "model_lost"
    assert caller.leg.close_code == 1011


async def test_one_callers_end_is_nothing_to_another(world: Any) -> None:
    session_a, caller_a = await world.call("twilio")
    session_b, caller_b = await world.call("twilio")
    caller_b.send(start(world.tokens.issue(CALL_SID, time.time())))
    await world.settle()
    caller_a.leg.send_text(b"garbage")
    await asyncio.sleep(0.1)
    assert set(world.reporter.ends) == {session_a}
    caller_b.send(media("AAAA"))
    await world.settle()
    assert world.endpoint.received[-1]["audio"] == "AAAA"
    assert world.host.sessions() == [(session_b, "twilio", "live", 1)]
    await asyncio.sleep(1.1)
    frames = {tuple(c.labels): c.value for c in world.drain_metrics().counters if c.name == names.AUDIO_FRAMES_TOTAL}
    assert frames == {("in",): 1.0}


async def test_what_the_stream_says_of_itself_cannot_pass_for_what_we_know(world: Any) -> None:
    token = world.tokens.issue(CALL_SID, time.time())
    session_id, caller = await dial(world, started=False)
    claims = {"token": token, "language": "en", "call_sid": "CA_other", "session_id": "sess_other", "channel": "openai"}
    caller.send(start(token, customParameters=claims))
    await world.settle()
    call, _ = world.host._calls[session_id]
    context = call._session._inside.context.context
    assert context == {"session_id": session_id, "channel": "twilio", "call_sid": CALL_SID, "language": "en"}


async def test_what_is_kept_for_the_model_is_bounded_in_bytes_too(world: Any) -> None:
    world.dial_delay = 5.0
    _, caller = await dial(world)
    for _ in range(100):
        caller.send(media("A" * 60_000))
        await world.settle()
    await asyncio.sleep(5.0)
    await world.settle()
    heard = [event["audio"] for event in world.endpoint.received if event["type"] == "input_audio_buffer.append"]
    assert 0 < sum(map(len, heard)) <= 1024 * 1024
