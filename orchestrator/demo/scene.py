"""The demo's call from the caller's side: ask, listen, interrupt, hear the goodbye, hang up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.demo.record import CallerView, Cut
from orchestrator.simulator.carrier.phone_call import PhoneCall, PhoneCallError

__all__ = ["INTERRUPTION", "QUESTION", "Lines", "Progress", "play", "speak_lines"]

QUESTION = "Where is my order four seven one one?"
INTERRUPTION = "Thank you, goodbye."

# How much of the answer the caller listens to before cutting in.
PATIENCE_MS = 2000.0
_GREETING_SECONDS = 2.0
_ANSWER_SECONDS = 30.0
_CLEAR_SECONDS = 5.0
_PAUSE_SECONDS = 0.7


class Lines(msgspec.Struct, frozen=True):
    """What the caller says, as µ-law audio."""

    question: bytes
    interruption: bytes


Progress = Callable[[str], None]
"""Told what happens, one short line each."""


def speak_lines() -> Lines:
    """Render the caller's lines; blocks for some milliseconds. Raises UserError where no speech can be made."""
    # Imported here: it needs numpy and espeak-ng, which only those who speak have to install.
    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.speech import SpeechRequest, synthesize

    def render(text: str) -> bytes:
        return synthesize(SpeechRequest(text, voice="echo", encoding=Encoding.MULAW)).audio

    return Lines(render(QUESTION), render(INTERRUPTION))


async def play(call: PhoneCall, lines: Lines, tell: Progress = lambda _line: None) -> CallerView:
    """Play the scene to its end, or to where it breaks: the trouble is then part of what is returned, not raised.

    The call is over in any case when this returns or is cancelled.
    """
    seen: dict[str, Any] = {}
    try:
        await _act(call, lines, tell, seen)
    except PhoneCallError as error:
        seen["trouble"] = error.message
        tell(error.message)
    finally:
        call.drop()
    violations = [f"{violation.code}: {violation.text}" for violation in call.line.violations]
    return CallerView(**seen, heard_ms=call.heard_ms, violations=violations)


async def _act(call: PhoneCall, lines: Lines, tell: Progress, seen: dict[str, Any]) -> None:
    tell("dialling")
    await call.dial()
    answered_at = call.answered_at or 0.0
    seen["answered"] = True

    def since_answer(at: float) -> float:
        return (at - answered_at) * 1000

    seen["greeting_heard"] = await _listen_to_greeting(call)

    tell(f"caller: {QUESTION}")
    before_answer_ms = call.heard_ms
    question = await call.say(lines.question)
    seen["question_ended_ms"] = since_answer(question.ended_at)
    seen["answer_began_ms"] = since_answer(await call.wait_for_speech(_ANSWER_SECONDS))
    tell("the agent answers")
    await call.wait_until_heard(before_answer_ms + PATIENCE_MS, _ANSWER_SECONDS)

    tell(f"caller, interrupting: {INTERRUPTION}")
    interruption = await call.say(lines.interruption)
    seen["interruption_began_ms"] = since_answer(interruption.began_at)
    seen["interruption_ended_ms"] = since_answer(interruption.ended_at)
    await call.wait_for_clear(1, _CLEAR_SECONDS)
    clearing = call.line.playout.clearings[0]
    seen["cut_ms"] = since_answer(clearing.at)
    seen["cut"] = Cut(heard_ms=clearing.heard_ms - before_answer_ms, dropped_ms=clearing.dropped_ms)

    seen["goodbye_began_ms"] = since_answer(await call.wait_for_speech(_ANSWER_SECONDS))
    tell("the agent says goodbye")
    await call.wait_for_quiet(_PAUSE_SECONDS)
    tell("hanging up")
    reason = await call.hang_up()
    seen["hung_up"] = reason.code == "closed_normally"


async def _listen_to_greeting(call: PhoneCall) -> bool:
    """Let the agent finish its greeting, if it has one."""
    call.ear.await_voice(call.answered_at or 0.0)
    try:
        await call.wait_for_speech(_GREETING_SECONDS)
    except PhoneCallError:
        if not call.is_up:
            raise
        return False
    await call.wait_for_quiet(_PAUSE_SECONDS)
    return True
