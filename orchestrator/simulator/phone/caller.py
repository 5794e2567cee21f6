"""The person who calls: goes through the steps of a script, and makes a sound or silence every 20 ms.

Pure. Speech is asked for one step ahead, in the format of the line, and anew where that changes within a step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.simulator.endpoint.outputs import Render
from orchestrator.simulator.speech import SpeechRequest

if TYPE_CHECKING:
    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.phone.earpiece import Earpiece
    from orchestrator.simulator.phone.order import PhoneOrder, Step
    from orchestrator.simulator.speech import Utterance

__all__ = ["FRAME_MS", "Caller", "CallerOutput", "HangUp", "Hear", "Press", "Said"]

FRAME_MS = 20
MOST_WAITING = 200


@dataclass(frozen=True)
class Hear:
    """The line carries this audio to the agent."""

    audio: bytes


@dataclass(frozen=True)
class Press:
    """The caller presses a key."""

    key: str


@dataclass(frozen=True)
class Said:
    """The caller begins to say this; `made` is False where no speech could be made of it."""

    text: str
    made: bool = True


@dataclass(frozen=True)
class HangUp:
    """The caller puts the phone down."""


CallerOutput: TypeAlias = Hear | Press | Said | HangUp | Render


class Caller:
    """What the caller still has to do. `connect` comes first; then `frame` every 20 ms."""

    def __init__(self, order: PhoneOrder, language: str) -> None:
        self._steps: deque[Step] = deque(order.says)
        self._voice = order.voice
        self._language = order.language or language
        self._pause = order.pause_seconds
        self._patience = order.patience_seconds
        self._since = 0.0
        self._asked: SpeechRequest | None = None
        self._speech: Utterance | None = None
        self._mute = False
        self._frames: int | None = None  # of the present step that were heard; None while it has not begun

    @property
    def steps_left(self) -> int:
        """Steps not done yet, the present one included."""
        return len(self._steps)

    def connect(self, now: float) -> None:
        """The agent has answered the phone."""
        self._since = now

    def add(self, step: Step) -> bool:
        """Have one more step done after the others; False if too many wait."""
        if len(self._steps) >= MOST_WAITING:
            return False
        self._steps.append(step)
        return True

    def provide(self, request: SpeechRequest, utterance: Utterance | None) -> None:
        """Take the speech that was asked for; None says that it cannot be made."""
        if request == self._asked:
            self._speech, self._mute = utterance, utterance is None

    def frame(self, now: float, ear: Earpiece, encoding: Encoding) -> list[CallerOutput]:
        """What the caller does in the frame that begins now. The audio of it comes last."""
        outputs: list[CallerOutput] = []
        audio: bytes | None = None
        while audio is None and self._steps:
            step = self._steps[0]
            if step.text is not None:
                outputs += self._ask(step.text, encoding)
            if self._frames is None and not self._is_time(step, now, ear):
                break
            if step.text is None:
                outputs += self._act(step, now)
                continue
            if self._mute:
                outputs.append(Said(step.text, made=False))
                self._done(now)
                continue
            if self._speech is None:
                break
            if self._frames is None:
                self._frames = 0
                outputs.append(Said(step.text))
            audio = self._slice(self._speech, encoding)
            if audio is None:
                self._done(now)
        outputs.append(Hear(audio or encoding.silence * (FRAME_MS * encoding.rate // 1000)))
        return outputs

    def _is_time(self, step: Step, now: float, ear: Earpiece) -> bool:
        if step.after_seconds is not None:
            return now >= self._since + step.after_seconds
        if ear.speaking(now):
            return False
        quiet_since = ear.quiet_since(now)
        if quiet_since is not None and quiet_since > self._since:
            return now >= quiet_since + self._pause
        return now >= self._since + self._patience

    def _ask(self, text: str, encoding: Encoding) -> list[CallerOutput]:
        request = SpeechRequest(text, self._voice, encoding=encoding, language=self._language)
        if request == self._asked:
            return []
        self._asked, self._speech, self._mute = request, None, False
        return [Render(request)]

    def _act(self, step: Step, now: float) -> list[CallerOutput]:
        self._done(now)
        if step.dtmf is not None:
            return [Press(key) for key in step.dtmf]
        self._steps.clear()
        return [HangUp()]

    def _slice(self, speech: Utterance, encoding: Encoding) -> bytes | None:
        """The next frame of the speech, the last one filled up with silence; None when all of it was heard."""
        number = self._frames or 0
        size = FRAME_MS * encoding.bytes_per_ms
        audio = speech.audio[number * size : (number + 1) * size]
        self._frames = number + 1
        return audio + encoding.silence * ((size - len(audio)) // encoding.width) if audio else None

    def _done(self, now: float) -> None:
        self._steps.popleft()
        self._since = now
        self._frames = self._asked = self._speech = None
        self._mute = False
