"""Three agents of a night train company: reception, a travel guide who looks things up, and a clerk who books seats."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from orchestrator import RunContextWrapper, function_tool
from orchestrator.guardrail import GuardrailFunctionOutput, output_guardrail
from orchestrator.realtime import RealtimeAgent, RealtimeRunConfig, realtime_handoff

__all__ = ["LOOK_UP_SECONDS", "Traveller", "reception", "run_config", "seats", "travel_guide"]

# Looking things up takes a while, as it does where documents are searched; the conversation goes on meanwhile.
LOOK_UP_SECONDS = 2.0
DEPARTURES = {"vienna": "21:40 from platform 3", "paris": "20:15 from platform 7", "rome": "19:30 from platform 1"}
ANSWERS = {
    "bicycle": "A bicycle travels in coach nine for ten euros; book it until the day before.",
    "breakfast": "Breakfast is brought to your berth half an hour before you arrive, and it is part of the price.",
    "dog": "Dogs travel in a private compartment for thirty euros, with a muzzle in the corridor.",
    "luggage": "You may bring two suitcases and one bag, as long as you can lift them yourself.",
}


@dataclass
class Traveller:
    """What is known of the person in the browser. One for each session, handed to every tool."""

    seat: str | None = None
    booking: str | None = None


@function_tool
def next_train(city: str) -> str:
    """Say when the next night train to a city leaves.

    Args:
        city: Where the traveller wants to go.
    """
    departure = DEPARTURES.get(city.strip().lower())
    return f"The night train to {city} leaves at {departure}." if departure else f"No night train goes to {city}."


@function_tool
async def look_up(question: str) -> str:
    """Look up an answer in the handbook: bicycles, breakfast, dogs, luggage.

    Args:
        question: The traveller's question, as it was asked.
    """
    await asyncio.sleep(LOOK_UP_SECONDS)
    found = (answer for word, answer in ANSWERS.items() if word in question.lower())
    return next(found, "The handbook says nothing about that.")


# The call waits until the person in the browser approves it: a seat that is booked is paid for.
@function_tool(needs_approval=True)
def book_seat(context: RunContextWrapper[Traveller], booking: str, seat: str) -> str:
    """Book a seat.

    Args:
        booking: The booking's number.
        seat: The seat, such as 12A.
    """
    context.context.booking, context.context.seat = booking, seat
    return f"Seat {seat} is booked under number {booking}."


# Async, so that it is called in the event loop: a plain function would be given a thread for each check.
@output_guardrail
async def no_guarantees(context: RunContextWrapper[Any], agent: RealtimeAgent[Any], output: str) -> GuardrailFunctionOutput:
    """Stop an agent that guarantees what nobody can."""
    found = re.search(r"\bguarantee", output, re.IGNORECASE)
    return GuardrailFunctionOutput(output_info={"agent": agent.name}, tripwire_triggered=found is not None)


BRIEF = "You are heard, not read: answer in one or two short sentences. "

travel_guide: RealtimeAgent[Traveller] = RealtimeAgent(
    name="Travel guide",
    handoff_description="Knows the handbook: bicycles, breakfast, dogs, luggage.",
    instructions=(
        f"{BRIEF}You answer questions about the journey. Say that you look it up, call look_up, and say what it found; never "
        "answer from memory. Transfer back to reception when you are done, or when something else is wanted."
    ),
    tools=[look_up],
)
seats: RealtimeAgent[Traveller] = RealtimeAgent(
    name="Seats",
    instructions=(
        f"{BRIEF}You book seats. Ask for the booking's number and the seat if you do not know them, then call book_seat; the "
        "traveller approves or refuses it on the screen. Say what came of it and transfer back to reception."
    ),
    tools=[book_seat],
)
reception: RealtimeAgent[Traveller] = RealtimeAgent(
    name="Reception",
    instructions=(
        f"{BRIEF}You are the reception of Nordline, a company with night trains. You know departures by next_train. Transfer "
        "to the travel guide for questions about the journey, and to seats for bookings. If you are shown a picture, say what "
        "is in it."
    ),
    tools=[next_train],
    # An agent stands for a handoff with a name and description made from its own; `realtime_handoff` says it in other words.
    handoffs=[travel_guide, realtime_handoff(seats, tool_description="Transfer to seats: booking and changing a seat.")],
)
# Set afterwards, since the agents refer to each other.
travel_guide.handoffs = [reception]
seats.handoffs = [reception]

run_config: RealtimeRunConfig = {
    "model_settings": {
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
        "turn_detection": {
            "type": "server_vad",
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
            "create_response": True,
            "interrupt_response": True,
        },
    },
    # The guardrail holds whoever speaks, so it belongs to the run.
    "output_guardrails": [no_guarantees],
    "guardrails_settings": {"debounce_text_length": 20},
}
