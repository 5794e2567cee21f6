"""The agent that answers: the reception of a hotel, which can hang up and can connect the caller with a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from orchestrator import RunContextWrapper, function_tool
from orchestrator.realtime import RealtimeAgent, RealtimeRunConfig
from orchestrator.realtime.calls import RealtimeCalls

__all__ = ["Line", "reception", "run_config"]

# A system of your own would be asked here.
FREE_ROOMS = {"tonight": 2, "tomorrow": 0}


@dataclass
class Line:
    """One call, as its tools see it. `person` is where a caller who wants one is sent, or None.

    `next_step` is what happens to the call once the agent's next words have been heard: a tool that ended the call itself would
    cut off the very sentence that says so.
    """

    call_id: str
    calls: RealtimeCalls
    person: str | None = None
    next_step: Callable[[], Awaitable[None]] | None = None

    async def hang_up(self) -> None:
        """End the call. Raises CallControlError."""
        await self.calls.hang_up(self.call_id)

    async def connect_person(self) -> None:
        """Send the caller to a person. Raises CallControlError."""
        if self.person is not None:
            await self.calls.refer(self.call_id, self.person)


@function_tool
def free_rooms(day: str) -> str:
    """Say how many rooms are free.

    Args:
        day: tonight or tomorrow.
    """
    return f"{FREE_ROOMS.get(day.strip().lower(), 0)} rooms are free {day}."


@function_tool
def end_call(context: RunContextWrapper[Line]) -> str:
    """End the call, when the caller has said goodbye."""
    context.context.next_step = context.context.hang_up
    return "Say goodbye in one short sentence. The call ends after it."


def a_person_is_there(context: RunContextWrapper[Line], agent: Any) -> bool:
    """Whether there is somebody to send the caller to."""
    return context.context.person is not None


@function_tool(is_enabled=a_person_is_there)
def transfer_to_person(context: RunContextWrapper[Line]) -> str:
    """Connect the caller with a person, when the caller asks for one."""
    context.context.next_step = context.context.connect_person
    return "Say in one short sentence that you connect the caller now. It happens after it."


reception: RealtimeAgent[Line] = RealtimeAgent(
    name="Reception",
    instructions=(
        "You are the reception of a small hotel. You are heard, not read: answer in one or two short sentences. Use free_rooms "
        "when somebody asks for a room, transfer_to_person when somebody wants a person, and end_call when the caller says "
        "goodbye."
    ),
    tools=[free_rooms, end_call, transfer_to_person],
)

run_config: RealtimeRunConfig = {
    "model_settings": {
        "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
        # Callers interrupt; the provider then cuts the agent off by itself, since it carries the audio.
        "turn_detection": {"type": "semantic_vad", "create_response": True, "interrupt_response": True},
    },
}
