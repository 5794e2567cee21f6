"""The agent that answers the telephone: a bicycle workshop that knows which repairs are done."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator import function_tool
from orchestrator.realtime import RealtimeAgent, RealtimeRunConfig

__all__ = ["PhoneCaller", "run_config", "workshop"]

# A system of your own would be asked here.
REPAIRS = {"123": "ready, and costs 42 euros", "124": "waiting for a wheel that comes on Friday"}


@dataclass(frozen=True)
class PhoneCaller:
    """What is known of a caller; every tool may ask for it. The carrier's id of the call is the one thing that is certain."""

    call_sid: str


@function_tool
def repair_status(ticket: str) -> str:
    """Say how far a repair is.

    Args:
        ticket: Number of the ticket, digits only.
    """
    return f"Bicycle {ticket} is {REPAIRS.get(ticket, 'not in our books')}."


workshop: RealtimeAgent[PhoneCaller] = RealtimeAgent(
    name="Workshop",
    instructions=(
        "You answer the telephone of a bicycle workshop, open from nine to six. You are heard, not read: answer in one or two "
        "short sentences. Greet the caller first. Ask for the number of the ticket and call repair_status when somebody asks "
        "about a repair."
    ),
    tools=[repair_status],
)

# The telephone network speaks 8 kHz µ-law, and so does the model: nothing is converted on the way.
run_config: RealtimeRunConfig = {
    "model_settings": {
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
        "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": True},
    },
}
