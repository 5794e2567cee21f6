"""The caller and the script: when a step is done, and what the line carries meanwhile."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.outputs import Render
from orchestrator.simulator.phone.caller import MOST_WAITING, Caller, HangUp, Hear, Press, Said
from orchestrator.simulator.phone.earpiece import Earpiece
from orchestrator.simulator.phone.order import PhoneOrder, Step
from orchestrator.simulator.speech import SpeechRequest
from tests.simulator.support import tone

MULAW = Encoding.MULAW
FRAME = 0.02


def order(*says: dict[str, Any], **more: Any) -> PhoneOrder:
    return msgspec.convert({"webhook_url": "http://localhost/", "says": says, **more}, PhoneOrder)


class Line:
    """Runs a caller frame by frame, and gives it the speech that it asks for."""

    def __init__(self, *says: dict[str, Any], encoding: Encoding = MULAW, provide: bool = True, **more: Any) -> None:
        self.ear = Earpiece()
        self.caller = Caller(order(*says, **more), "en-us")
        self.encoding = encoding
        self.provide = provide
        self.number = 0
        self.asked: list[SpeechRequest] = []
        self.done: list[tuple[float, Any]] = []
        self.audio = bytearray()
        self.caller.connect(0.0)

    @property
    def now(self) -> float:
        return self.number * FRAME

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / FRAME)):
            outputs = self.caller.frame(self.now, self.ear, self.encoding)
            for output in outputs[:-1]:
                if isinstance(output, Render):
                    self.asked.append(output.request)
                    if self.provide:
                        self.caller.provide(output.request, tone(output.request))
                else:
                    self.done.append((round(self.now, 3), output))
            last = outputs[-1]
            assert isinstance(last, Hear)
            assert len(last.audio) == 20 * self.encoding.bytes_per_ms
            self.audio += last.audio
            self.number += 1


def test_it_speaks_when_the_agent_has_finished() -> None:
    line = Line({"text": "hello"}, pause_seconds=0.5)
    line.ear.play("a", 1.0, now=0.2)
    line.run(3.0)
    assert line.done == [(1.7, Said("hello"))]
    assert line.asked == [SpeechRequest("hello", "echo", encoding=MULAW)]
    spoken = tone(line.asked[0]).audio
    assert spoken in bytes(line.audio)
    quiet = bytes(line.audio).replace(spoken, b"")
    assert set(quiet) == {0xFF}


def test_it_speaks_first_if_the_agent_says_nothing() -> None:
    line = Line({"text": "hello"}, patience_seconds=2.0)
    line.run(3.0)
    assert line.done == [(2.0, Said("hello"))]


def test_each_step_waits_for_an_answer_of_its_own() -> None:
    line = Line({"text": "one"}, {"text": "two"}, pause_seconds=0.1, patience_seconds=50)
    line.ear.play("a", 0.1, now=0.0)
    line.run(5.0)
    assert line.done == [(0.2, Said("one"))]
    line.ear.play("b", 0.1, now=5.0)
    line.run(1.0)
    assert line.done[1:] == [(5.2, Said("two"))]


def test_a_step_with_a_time_comes_at_it_also_into_the_agents_words() -> None:
    line = Line(
        {"text": "stop", "after_seconds": 0.5}, {"dtmf": "1#", "after_seconds": 0.25}, {"hang_up": True, "after_seconds": 1}
    )
    line.ear.play("a", 60.0, now=0.0)
    line.run(3.0)
    # "stop" takes 0.2 s in the speech of these tests.
    assert line.done == [(0.5, Said("stop")), (0.96, Press("1")), (0.96, Press("#")), (1.96, HangUp())]


def test_speech_that_is_late_is_waited_for_in_silence() -> None:
    line = Line({"text": "hello", "after_seconds": 0}, provide=False)
    line.run(1.0)
    assert line.done == []
    line.caller.provide(line.asked[0], tone(line.asked[0]))
    line.run(1.0)
    assert line.done == [(1.0, Said("hello"))]


def test_what_cannot_be_said_is_passed_over() -> None:
    line = Line({"text": "hello", "after_seconds": 0}, {"dtmf": "5", "after_seconds": 0}, provide=False)
    line.run(0.1)
    line.caller.provide(line.asked[0], None)
    line.run(0.1)
    assert line.done == [(0.1, Said("hello", made=False)), (0.1, Press("5"))]


def test_the_line_may_change_its_format_in_the_middle_of_a_word() -> None:
    line = Line({"text": "a long sentence", "after_seconds": 0})
    line.run(0.3)
    line.encoding = Encoding.PCM16
    line.run(0.1)
    assert [request.encoding for request in line.asked] == [MULAW, Encoding.PCM16]
    line.run(1.0)
    assert [what for _, what in line.done] == [Said("a long sentence")]
    # What was spoken in the first format is not said again in the second.
    assert bytes(line.audio).endswith(b"\0" * 100)


def test_the_same_words_twice_are_asked_for_twice() -> None:
    line = Line({"text": "yes", "after_seconds": 0}, {"text": "yes", "after_seconds": 0.1})
    line.run(1.0)
    assert [what for _, what in line.done] == [Said("yes"), Said("yes")]


def test_speech_for_something_else_is_not_taken() -> None:
    line = Line({"text": "yes", "after_seconds": 0}, provide=False)
    line.run(0.1)
    other = SpeechRequest("no")
    line.caller.provide(other, tone(other))
    line.run(0.1)
    assert line.done == []


def test_more_can_be_given_to_do_up_to_a_limit() -> None:
    line = Line()
    assert line.caller.add(Step(dtmf="1", after_seconds=0.0))
    line.run(0.1)
    assert line.done == [(0.0, Press("1"))]
    while line.caller.add(Step(text="more")):
        assert line.caller.steps_left <= MOST_WAITING
    assert line.caller.steps_left == MOST_WAITING


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"text": "a", "hang_up": True},
        {"text": ""},
        {"text": "a" * 2001},
        {"dtmf": "x"},
        {"dtmf": ""},
        {"text": "a", "after_seconds": -1},
        {"text": "a", "wait_for": "noise"},
        {"text": "a", "wait_for": "silence", "after_seconds": 1},
        {"text": "a", "when": "now"},
    ],
)
def test_a_step_that_makes_no_sense_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        order(step)


def test_a_header_cannot_bring_another_one() -> None:
    for value in ("a\r\nX: b", "a\n"):
        with pytest.raises(msgspec.ValidationError):
            order(headers=[{"name": "X-A", "value": value}])


def test_the_text_form_of_an_order_shows_no_secret_and_no_words() -> None:
    text = repr(order({"text": "my pin is 1234"}, secret="whsec_abc"))
    assert "1234" not in text
    assert "whsec" not in text
