"""Faults on a leg in memory, under a virtual clock: what arrives at the client, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from orchestrator.errors import EndReason
from orchestrator.simulator.endpoint import fault_leg
from orchestrator.simulator.endpoint.fault_desk import FaultDesk
from orchestrator.simulator.endpoint.fault_effects import End, FailResponse, Inside, Report, Waiting
from orchestrator.simulator.endpoint.fault_leg import FaultyLeg
from orchestrator.simulator.endpoint.fault_types import (
    AnyFault,
    Delay,
    Drop,
    ErrorFault,
    Expire,
    Fail,
    Refuse,
    Spread,
    Stall,
    TranscriptionFault,
)
from orchestrator.testing import virtual_clock
from orchestrator.transports import Leg, LegOptions, LegState, memory_pair
from orchestrator.transports.memory import MemoryPair

CREATED = b'{"type":"session.created"}'
RESPONSE = b'{"type":"response.created"}'
DELTA = b'{"type":"response.output_audio.delta"}'
WORDS = b'{"type":"conversation.item.input_audio_transcription.delta"}'
TRANSCRIBED = b'{"type":"conversation.item.input_audio_transcription.completed"}'
SILENT = LegOptions(ping_interval=None)


class Client:
    """Hears what arrives, and when."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self.closed: EndReason | None = None

    def on_text(self, data: bytes) -> None:
        self.heard.append((round(asyncio.get_running_loop().time(), 6), data))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("nothing is binary")

    def on_closed(self, reason: EndReason) -> None:
        self.closed = reason

    @property
    def frames(self) -> list[bytes]:
        return [data for _, data in self.heard]

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.heard]


class Session:
    """A session that hears its client, and does to itself what it is told."""

    def __init__(self, desk: FaultDesk) -> None:
        self._desk = desk
        self.leg: FaultyLeg | None = None
        self.heard: list[float] = []
        self.injected: list[Inside] = []

    def on_open(self, leg: Leg) -> None:
        self.leg = self._desk.attach(self._desk.visitor("m", "k"), leg, self)

    def on_text(self, data: bytes) -> None:
        self.heard.append(asyncio.get_running_loop().time())

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("nothing is binary")

    def on_closed(self, reason: EndReason) -> None:
        pass

    def inject(self, effect: Inside) -> None:
        self.injected.append(effect)

    def send(self, *frames: bytes) -> None:
        assert self.leg is not None
        for frame in frames:
            self.leg.send_text(frame)


class Stage:
    """A client, a session and the faults between them."""

    def __init__(self, *faults: AnyFault, options: LegOptions = SILENT) -> None:
        self.desk = FaultDesk(faults, seed=1)
        self.client, self.session = Client(), Session(self.desk)
        self.pair: MemoryPair = memory_pair(self.client, self.session, options=options)


def play(scene: Callable[[Stage], Awaitable[None]], *faults: AnyFault, options: LegOptions = SILENT) -> Stage:
    async def main() -> Stage:
        stage = Stage(*faults, options=options)
        await scene(stage)
        stage.desk.clear()
        stage.pair.client.close()
        await asyncio.gather(stage.pair.client.wait_closed(), stage.pair.server.wait_closed())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return stage

    return virtual_clock.run(main())


def test_without_a_fault_everything_passes_at_once() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED, RESPONSE, DELTA)
        await asyncio.sleep(1)

    stage = play(scene)
    assert stage.client.heard == [(0.0, CREATED), (0.0, RESPONSE), (0.0, DELTA)]


def test_a_cut_comes_right_after_the_event_and_without_a_close_frame() -> None:
    async def scene(stage: Stage) -> None:
        for _ in range(3):
            stage.session.send(DELTA)
            await asyncio.sleep(0.1)

    stage = play(scene, Drop(at="nth_audio_delta", n=2))
    assert stage.client.frames == [DELTA, DELTA]
    assert stage.pair.client.close_code == 1006
    assert stage.client.closed is not None
    assert stage.client.closed.code == "connection_lost"


def test_a_close_frame_has_the_code_that_was_asked_for() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED, RESPONSE)
        await asyncio.sleep(1)

    stage = play(scene, Drop(at="nth_response", code=1012, reason="restart"))
    assert stage.client.frames == [CREATED, RESPONSE]
    assert (stage.pair.client.close_code, stage.pair.client.close_reason) == (1012, "restart")


def test_a_stall_holds_both_directions_back_and_loses_nothing() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED)
        await asyncio.sleep(1)
        stage.session.send(RESPONSE, DELTA)
        stage.pair.client.send_text(b"hello")
        await asyncio.sleep(4)

    stage = play(scene, Stall(at="session_created", seconds=3))
    assert stage.client.heard == [(0.0, CREATED), (3.0, RESPONSE), (3.0, DELTA)]
    assert stage.session.heard == [3.0]


@pytest.mark.parametrize(("direction", "sent", "heard"), [("send", 5.0, 1.0), ("receive", 1.0, 5.0)])
def test_a_stall_may_be_one_way(direction: str, sent: float, heard: float) -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED)
        await asyncio.sleep(1)
        stage.session.send(DELTA)
        stage.pair.client.send_text(b"hello")
        await asyncio.sleep(9)

    stage = play(scene, Stall(at="session_created", seconds=5, direction=direction))  # type: ignore[arg-type]
    assert stage.client.times == [0.0, sent]
    assert stage.session.heard == [heard]


def test_a_stalled_socket_answers_no_ping_so_that_the_client_gives_up() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED)
        await stage.pair.client.wait_closed()
        assert stage.pair.server.state is LegState.OPEN, "who hangs does not notice"

    stage = play(scene, Stall(at="session_created"), options=LegOptions(ping_interval=20, ping_timeout=20))
    assert stage.client.closed is not None
    assert stage.client.closed.code == "keepalive_timeout"


def test_a_stall_for_ever_ends_when_it_is_removed_and_others_go_on() -> None:
    async def scene(stage: Stage) -> None:
        first = stage.desk.add(Stall())
        second = stage.desk.add(Stall(direction="send"))
        stage.session.send(DELTA)
        stage.pair.client.send_text(b"hello")
        await asyncio.sleep(100)
        assert stage.desk.remove(first)
        await asyncio.sleep(1)
        assert (stage.client.heard, stage.session.heard) == ([], [100.0])
        assert stage.desk.remove(second)
        assert not stage.desk.remove(second)
        await asyncio.sleep(1)

    assert play(scene).client.heard == [(101.0, DELTA)]


def test_delays_keep_the_order() -> None:
    async def scene(stage: Stage) -> None:
        for number in range(50):
            stage.session.send(b"%d" % number)
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)

    stage = play(scene, Delay(seconds=Spread(uniform=(0.0, 1.0))))
    assert stage.client.frames == [b"%d" % number for number in range(50)]
    assert stage.client.times == sorted(stage.client.times)
    assert stage.client.times[0] > 0
    assert stage.client.times[-1] > 0.5


def test_a_close_comes_after_what_is_late() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(CREATED)
        assert stage.session.leg is not None
        stage.session.leg.close(1001, "old")
        await stage.pair.client.wait_closed()
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    stage = play(scene, Delay(seconds=2.0))
    assert stage.client.frames == [CREATED]
    assert stage.pair.client.close_code == 1001


def test_a_fault_waits_for_the_event_that_is_late() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(RESPONSE)
        await asyncio.sleep(3)

    stage = play(scene, Delay(seconds=2.0), Drop(at="nth_response"))
    assert stage.client.heard == [(2.0, RESPONSE)]
    assert stage.pair.client.close_code == 1006


def test_a_transcription_that_comes_again_is_another_event() -> None:
    event = b'{"type":"conversation.item.input_audio_transcription.completed","event_id":"event_En74Bz","transcript":"Yes."}'

    async def scene(stage: Stage) -> None:
        stage.session.send(event)
        await asyncio.sleep(1)

    frames = play(scene, TranscriptionFault(copies=16)).client.frames
    assert frames[0] == event
    decoded = [json.loads(frame) for frame in frames]
    assert len({frame.pop("event_id") for frame in decoded}) == 16
    assert all(frame == decoded[0] for frame in decoded)


def test_a_transcription_is_overtaken_and_comes_twice() -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(WORDS, TRANSCRIBED, RESPONSE)
        await asyncio.sleep(3)

    stage = play(scene, TranscriptionFault(seconds=1.0, copies=2))
    assert stage.client.heard == [(0.0, RESPONSE), (1.0, WORDS), (1.0, TRANSCRIBED), (1.0, TRANSCRIBED)]


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        (Fail(code="insufficient_quota", message="m"), FailResponse("server_error", "insufficient_quota", "m")),
        (ErrorFault(message="m"), Report("server_error", "server_error", "m")),
        (Expire(at="nth_response"), End()),
    ],
)
def test_what_the_session_has_to_do_it_is_told_at_once(fault: AnyFault, effect: Inside) -> None:
    async def scene(stage: Stage) -> None:
        stage.session.send(RESPONSE)
        assert stage.session.injected == [effect]

    play(scene, fault)


def test_what_comes_by_the_clock_comes_without_any_event() -> None:
    async def scene(stage: Stage) -> None:
        await asyncio.sleep(19)
        assert stage.session.injected == []
        await asyncio.sleep(2)

    assert play(scene, Expire(at="nth_second", n=20)).session.injected == [End()]


def test_a_fault_that_was_announced_drops_who_is_there_by_then() -> None:
    async def scene(stage: Stage) -> None:
        await asyncio.sleep(29)
        assert stage.pair.client.state is LegState.OPEN
        await stage.pair.client.wait_closed()
        assert asyncio.get_running_loop().time() == pytest.approx(30)

    assert play(scene, Drop(after_seconds=30)).pair.client.close_code == 1006


def test_more_than_may_be_late_ends_the_leg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_leg, "MOST_LATE_BYTES", 1000)

    async def scene(stage: Stage) -> None:
        stage.session.send(b"x" * 600, b"y" * 600)
        await stage.pair.server.wait_closed()

    stage = play(scene, Delay(seconds=60))
    assert stage.client.frames == []
    assert stage.pair.client.close_code == 1006


def test_an_upgrade_waits_for_its_time_or_for_the_end_of_the_fault() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        desk = FaultDesk([Stall(at="connect", seconds=3, times=1), Stall(at="connect")])
        first = desk.connect(desk.visitor("m", "k"))
        second = desk.connect(desk.visitor("m", "k"))
        assert isinstance(first, Waiting)
        assert isinstance(second, Waiting)
        await desk.patience(first)
        assert loop.time() == pytest.approx(3)
        loop.call_later(7, desk.remove, "fault_2")
        await desk.patience(second)
        assert loop.time() == pytest.approx(10)
        await desk.patience(second)
        desk.clear()

    virtual_clock.run(main())


def test_a_seed_makes_the_arrivals_repeat() -> None:
    async def scene(stage: Stage) -> None:
        for _ in range(20):
            stage.session.send(DELTA)
            await asyncio.sleep(0.05)
        await asyncio.sleep(5)

    faults: list[AnyFault] = [
        Delay(seconds=Spread(uniform=(0.0, 0.4))),
        Refuse(status=503),
        Drop(at="nth_audio_delta", n=18, probability=0.5),
    ]
    assert play(scene, *faults).client.heard == play(scene, *faults).client.heard
