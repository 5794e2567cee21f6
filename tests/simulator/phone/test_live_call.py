"""A call on a virtual clock: a phone, the model session, and the sockets beside it."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from orchestrator.errors import EndReason, IllegalTransitionError
from orchestrator.simulator.endpoint.model_session import SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.endpoint.session_config import decode_preset
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.phone.call import CallState, PhoneCall
from orchestrator.simulator.phone.live_call import MOST_SIDEBANDS, LiveCall, Sideband
from orchestrator.simulator.phone.order import PhoneOrder, Step
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from orchestrator.testing import virtual_clock
from orchestrator.transports import MemoryPair, memory_pair
from tests.simulator.support import SCENARIO, UNIX_TIME, Recorder, tone

OPTIONS = ModelOptions(timing=Timing(first_output=0.1, pace=5.0), transcription_delay=0.0)
PHONE_FORMAT = {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}}


class Tones(Speaker):
    """Speech whose length the test knows: 50 ms for a letter."""

    def render(self, request: SpeechRequest) -> Utterance:
        return tone(request)


class Beside:
    """A socket beside a call."""

    def __init__(self, call: LiveCall) -> None:
        self.events: list[dict[str, Any]] = []
        self.closed: EndReason | None = None
        self.sideband = Sideband(call)
        self.pair: MemoryPair = memory_pair(self, self.sideband)

    def on_text(self, data: bytes) -> None:
        self.events.append(json.loads(data))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the API sends no binary messages")

    def on_closed(self, reason: EndReason) -> None:
        self.closed = reason

    def send(self, type_: str, **members: Any) -> None:
        self.pair.client.send_text(json.dumps({"type": type_, **members}).encode())

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def until(self, type_: str, count: int = 1) -> None:
        while self.types.count(type_) < count:  # noqa: ASYNC110 - the clock is virtual
            await asyncio.sleep(0.01)


class Stage:
    """One call, and what a test needs to drive it."""

    def __init__(self, recorder: Recorder, pool: ThreadPoolExecutor, options: ModelOptions, *says: dict[str, Any]) -> None:
        order = msgspec.convert({"webhook_url": "http://localhost/", "says": says, "pause_seconds": 0.3}, PhoneOrder)
        loop = asyncio.get_running_loop()
        self.phone = PhoneCall(order, "en-us", loop.time(), 30.0)
        self.call = LiveCall("rtc_1", self.phone, SpeechDesk(Tones(), pool), recorder)
        self._options = options
        self.machine: SessionMachine | None = None

    def accept(self, **settings: Any) -> None:
        preset = decode_preset(json.dumps({"type": "realtime", **settings}).encode())
        ids = IdSource(lambda: UNIX_TIME, 1)
        self.machine = machine = SessionMachine(
            SCENARIO, self._options, ids, model="gpt-realtime", unix_time=UNIX_TIME, preset=preset, in_call=True
        )
        self.call.accept(machine)

    def names(self) -> list[str]:
        return [event["event"] for event in self.phone.events()]

    async def over(self) -> None:
        while not self.phone.over:  # noqa: ASYNC110 - the clock is virtual
            await asyncio.sleep(0.01)

    def heard(self) -> list[str]:
        return [item.transcript for item in self.phone.heard(asyncio.get_running_loop().time())]


@pytest.fixture
def play(recorder: Recorder) -> Callable[..., None]:
    """Run a scene with a call that rings, whose caller has these steps to do."""

    def run(scene: Callable[[Stage], Awaitable[None]], *says: dict[str, Any], options: ModelOptions = OPTIONS) -> None:
        async def main() -> None:
            with ThreadPoolExecutor(1) as pool:
                stage = Stage(recorder, pool, options, *says)
                await scene(stage)
                stage.call.abort()
                assert not own_timers()

        virtual_clock.run(main())

    return run


def own_timers() -> list[asyncio.TimerHandle]:
    """What the loop still has to wake up for, on behalf of the call."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [timer for timer in scheduled if not timer.cancelled() and "_wake" in repr(timer)]


def test_a_call_nobody_takes_is_dropped(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.over()
        assert asyncio.get_running_loop().time() == pytest.approx(30.0, abs=0.1)
        assert stage.phone.end_reason is not None
        assert stage.phone.end_reason.code == "no_answer"

    play(scene)


def test_a_whole_conversation_over_the_phone(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept(instructions="Be brief.", **PHONE_FORMAT)
        beside = Beside(stage.call)
        await beside.until("session.created")
        session = beside.events[0]["session"]
        assert (session["instructions"], session["model"]) == ("Be brief.", "gpt-realtime")
        beside.send("response.create")
        await stage.over()
        await beside.pair.client.wait_closed()
        assert beside.types[0] == "session.created"
        assert "response.output_audio.delta" not in beside.types
        assert beside.types.count("output_audio_buffer.started") == 2
        assert beside.types.count("output_audio_buffer.stopped") == 2
        assert beside.types.count("input_audio_buffer.speech_started") == 1
        assert beside.types.count("input_audio_buffer.dtmf_event_received") == 2
        assert beside.pair.client.close_code == 1000
        assert stage.heard() == ["Welcome to the test.", "The first answer has quite a few words in it."]
        assert stage.phone.end_reason is not None
        assert stage.phone.end_reason.code == "caller_hung_up"
        assert stage.names() == [
            *("ringing", "connected", "sideband_attached", "agent_started", "agent_stopped", "caller_said"),
            *("agent_started", "agent_stopped", "caller_pressed", "caller_pressed", "ended"),
        ]

    play(scene, {"text": "first question"}, {"dtmf": "4#"}, {"hang_up": True, "after_seconds": 0.1})


def test_a_barge_in_cuts_what_is_heard_where_the_model_thinks_it_was_cut(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept(**PHONE_FORMAT)
        beside = Beside(stage.call)
        await beside.until("session.created")
        beside.send("response.create")
        await beside.until("conversation.item.truncated")
        (cut,) = [event for event in beside.events if event["type"] == "conversation.item.truncated"]
        (heard,) = stage.phone.heard(asyncio.get_running_loop().time())
        assert heard.item_id == cut["item_id"]
        assert heard.ms == pytest.approx(cut["audio_end_ms"], abs=2)
        assert not heard.whole
        assert heard.transcript
        assert "Welcome to the test.".startswith(heard.transcript)
        assert "output_audio_buffer.cleared" in beside.types
        assert "agent_cut_off" in stage.names()

    play(scene, {"text": "let me interrupt you", "after_seconds": 0.5})


def test_a_socket_may_silence_the_agent(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept(**PHONE_FORMAT)
        beside = Beside(stage.call)
        await beside.until("session.created")
        beside.send("response.create")
        await beside.until("output_audio_buffer.started")
        await asyncio.sleep(0.4)
        beside.send("output_audio_buffer.clear")
        await beside.until("output_audio_buffer.cleared")
        await asyncio.sleep(5)
        (heard,) = stage.phone.heard(asyncio.get_running_loop().time())
        assert heard.ms == pytest.approx(400, abs=50)
        assert not heard.whole

    play(scene)


def test_several_sockets_see_the_same_and_each_may_command(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        first = Beside(stage.call)
        await first.until("session.created")
        second = Beside(stage.call)
        await second.until("session.created")
        assert stage.call.sidebands == 2
        # The second one's beginning is its own.
        assert first.types == ["session.created"]
        second.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        first.send("response.create")
        await second.until("rate_limits.updated")
        assert first.events[1:] == second.events[1:]
        first.pair.client.close()
        await first.pair.client.wait_closed()
        assert stage.call.sidebands == 1
        second.send("nope")
        second.sideband.on_binary(b"x")
        await second.until("error", 2)
        assert stage.phone.state is CallState.CONNECTED

    play(scene)


def test_without_any_socket_the_call_goes_on(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        await stage.over()
        assert stage.heard() == ["The first answer has quite a few words in it."]

    play(scene, {"text": "first question", "after_seconds": 0.1}, {"hang_up": True})


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        (lambda call: call.refer("tel:+15550199"), CallState.REFERRED, "referred"),
        (lambda call: call.end(EndReason("hung_up")), CallState.ENDED, "hung_up"),
        (lambda call: call.hang_up(), CallState.ENDED, "caller_hung_up"),
    ],
)
def test_every_end_closes_the_sockets_with_the_code_of_the_options(
    play: Callable[..., None], end: Callable[[LiveCall], None], state: CallState, code: str
) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        beside = Beside(stage.call)
        await beside.until("session.created")
        end(stage.call)
        await beside.pair.client.wait_closed()
        assert beside.pair.client.close_code == 4321
        assert stage.phone.state is state
        assert stage.phone.end_reason is not None
        assert stage.phone.end_reason.code == code
        assert not stage.call.live
        with pytest.raises(IllegalTransitionError):
            end(stage.call)
        beside.send("response.create")

    play(scene, options=ModelOptions(call_end_code=4321))


def test_the_session_may_reach_its_age(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        beside = Beside(stage.call)
        await beside.pair.client.wait_closed()
        assert beside.events[-1]["error"]["code"] == "session_expired"
        assert beside.pair.client.close_code == 1001
        assert stage.phone.end_reason is not None
        assert stage.phone.end_reason.code == "session_ended"

    play(scene, options=ModelOptions(session_seconds=5.0))


def test_the_server_that_goes_says_so(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        beside = Beside(stage.call)
        await beside.until("session.created")
        stage.call.abort()
        await beside.pair.client.wait_closed()
        assert beside.pair.client.close_code == 1001
        stage.call.abort()

    play(scene)


def test_a_socket_that_comes_too_late_or_is_one_too_many_is_closed(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        early = Beside(stage.call)
        await early.pair.client.wait_closed()
        stage.accept()
        attached = [Beside(stage.call) for _ in range(MOST_SIDEBANDS + 1)]
        await attached[-1].pair.client.wait_closed()
        assert attached[-1].events == []
        assert stage.call.sidebands == MOST_SIDEBANDS
        stage.call.hang_up()
        late = Beside(stage.call)
        await late.pair.client.wait_closed()
        assert late.events == []

    play(scene)


def test_the_format_of_the_line_may_change_while_it_is_open(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        beside = Beside(stage.call)
        await beside.until("session.created")
        beside.send("session.update", session={"type": "realtime", **PHONE_FORMAT})
        await beside.until("session.updated")
        stage.call.say(Step(text="first question", after_seconds=0.0))
        await beside.until("output_audio_buffer.stopped")
        assert stage.heard() == ["The first answer has quite a few words in it."]
        (heard,) = stage.phone.heard(asyncio.get_running_loop().time())
        assert heard.ms == 50 * len(heard.transcript)

    play(scene)


def test_keys_are_heard_once_the_call_is_taken(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.call.press("1")
        stage.accept()
        beside = Beside(stage.call)
        await beside.until("session.created")
        stage.call.press("12")
        await beside.until("input_audio_buffer.dtmf_event_received", 2)
        assert [event["event"] for event in beside.events[1:]] == ["1", "2"]

    play(scene)


def test_a_bug_of_ours_ends_the_call_and_is_reported(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        stage.accept()
        beside = Beside(stage.call)
        await beside.until("session.created")
        stage.call._line = "no format"  # type: ignore[assignment]
        await beside.pair.client.wait_closed()
        assert beside.pair.client.close_code == 1011
        assert stage.phone.over
        assert len(reported) == 1

    play(scene)


def test_what_is_due_when_a_socket_joins_goes_to_those_that_were_there(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept(output_modalities=["text"])
        first = Beside(stage.call)
        await first.until("session.created")
        first.sideband.on_text(b'{"type":"response.create"}')
        # All of the response is due now, and the timer for it has not run yet.
        second = Beside(stage.call)
        await first.until("rate_limits.updated")
        assert second.types[:2] == first.types[:2] == ["session.created", "conversation.created"]
        assert first.types.count("conversation.created") == 1
        assert "response.output_item.added" in first.types
        assert "response.output_item.done" in first.types

    play(scene, options=ModelOptions(timing=Timing(first_output=0.0, text_interval=0.0), conversation_created=True))


def test_a_call_that_is_over_keeps_nothing_of_its_session(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.accept()
        machine = weakref.ref(stage.machine)
        stage.machine = None
        await asyncio.sleep(0.1)
        stage.call.hang_up()
        await asyncio.sleep(0.1)
        gc.collect()
        assert machine() is None
        assert stage.phone.over

    play(scene)


def test_a_bug_that_one_socket_finds_leaves_no_half_of_a_call(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        stage.accept()
        assert stage.machine is not None
        sockets = [Beside(stage.call), Beside(stage.call)]
        await sockets[1].until("session.created")
        del stage.machine._turns
        sockets[0].send("input_audio_buffer.clear")
        for socket in sockets:
            await socket.pair.client.wait_closed()
            assert socket.pair.client.close_code == 1011
        assert stage.phone.over

    play(scene)
