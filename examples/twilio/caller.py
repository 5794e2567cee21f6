"""Somebody at a telephone, played by the offline carrier: asks, interrupts the answer, says goodbye, hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.carrier.phone_call import CallOptions, PhoneCall, PhoneCallError
from orchestrator.simulator.speech import SpeechRequest, synthesize

__all__ = ["call_the_desk"]

QUESTION = "Is the bicycle one two three ready?"
GOODBYE = "Thank you, goodbye."
# How much of the answer the caller listens to before cutting in.
PATIENCE_MS = 2500.0
PAUSE_SECONDS = 0.5


async def call_the_desk(url: str, auth_token: str | None = None, write: Callable[[str], None] = print) -> bool:
    """Place the call, hold it to its end, and say how it was. Returns whether it went as a call should."""
    phone = PhoneCall(url, CallOptions(auth_token=auth_token))
    try:
        await _hold(phone)
    except PhoneCallError as error:
        write(f"[phone] {error.message}")
        return False
    finally:
        phone.drop()
    playout = phone.line.playout
    dropped = sum(clearing.dropped_ms for clearing in playout.clearings)
    write(f"[phone] heard {phone.heard_ms / 1000:.1f} s of the agent; {dropped / 1000:.1f} s were cleared unheard")
    for violation in phone.line.violations:
        write(f"[phone] the carrier warns: {violation.code} {violation.text}")
    return not phone.line.violations


async def _hold(phone: PhoneCall) -> None:
    # Speaking takes some milliseconds of computing, for which nobody else should wait.
    question, goodbye = await asyncio.gather(*(asyncio.to_thread(spoken, text) for text in (QUESTION, GOODBYE)))
    await phone.dial()
    await phone.wait_until_heard(1.0)
    await phone.wait_for_quiet(PAUSE_SECONDS)
    await phone.say(question)
    await phone.wait_for_speech()
    await phone.wait_until_heard(phone.heard_ms + PATIENCE_MS)
    await phone.say(goodbye)
    await phone.wait_for_clear()
    await phone.wait_for_speech()
    await phone.wait_for_quiet(PAUSE_SECONDS)
    await phone.hang_up()


def spoken(text: str) -> bytes:
    """Return a sentence as the telephone network carries it."""
    return synthesize(SpeechRequest(text, voice="echo", encoding=Encoding.MULAW)).audio
