"""The official Python agents library in conversations with an endpoint; only address and key are ours.

Run in the environment of the judges: `python program.py '{"quick": URL, "steady": URL, "speech": FILE}'`. It prints one JSON
line for every event that the library hands out, and at the end of each case one that says whether it ran through. What the
library warns of goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents import GuardrailFunctionOutput, OutputGuardrail, function_tool
from agents.realtime import RealtimeAgent, RealtimeModelSendRawMessage, RealtimeRunner, RealtimeSession

PATIENCE = 60.0
BYTES_PER_MS = 48
CHUNK = 20 * BYTES_PER_MS
# The speech ends with so much silence.
PAUSE = 800 * BYTES_PER_MS
RED_SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)


def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"It is sunny in {city}, twenty one degrees."


def pay_back(invoice: str) -> str:
    """Pay an invoice back."""
    return f"Invoice {invoice} is paid back."


async def no_swordfish(_context: Any, _agent: Any, output: str) -> Any:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered="swordfish" in output)


def agent() -> Any:
    billing = RealtimeAgent(name="billing", instructions="You handle invoices.")
    return RealtimeAgent(
        name="reception",
        instructions="You answer questions.",
        tools=[
            function_tool(weather, name_override="get_weather"),
            function_tool(pay_back, needs_approval=True),
        ],
        handoffs=[billing],
        output_guardrails=[OutputGuardrail(guardrail_function=no_swordfish, name="no_swordfish")],
    )


class Endpoint:
    """Where the endpoint is, and the speech that is played to it."""

    def __init__(self, words: dict[str, str]) -> None:
        self.quick = words["quick"]
        self.steady = words["steady"]
        self.speech = Path(words["speech"]).read_bytes()
        self.voice = self.speech[:-PAUSE]
        self.pause = self.speech[-PAUSE:]


class Case:
    """One conversation: reports all that happens in it, and waits for what it is told to wait for."""

    def __init__(self, name: str, session: Any) -> None:
        self._name = name
        self._events = aiter(session)
        self.session = session

    async def until(self, label: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """Go on until an event of this label; frames of the endpoint are labelled `server:` and their type."""
        async for event in self._events:
            label_now, detail = describe(event)
            report(self._name, label_now, **detail)
            if label_now == label and fits(event):
                return event
        raise EOFError(f"the session ended before {label}")

    async def done(self) -> None:
        """Go on to the end of a response that was completed."""
        await self.until("server:response.done", lambda event: event.data.data["response"]["status"] == "completed")

    async def speak(self, audio: bytes) -> None:
        for start in range(0, len(audio), CHUNK):
            await self.session.send_audio(audio[start : start + CHUNK])


def report(case: str, label: str, **detail: Any) -> None:
    sys.stdout.write(json.dumps({"case": case, "event": label, **detail}) + "\n")


def describe(event: Any) -> tuple[str, dict[str, Any]]:
    """The label of a session event, and what the test wants to know of it."""
    if event.type == "raw_model_event":
        if event.data.type == "raw_server_event":
            return describe_frame(event.data.data)
        # An exception here has no event of its own; the library raises it where its events are read.
        return f"model:{event.data.type}", {}
    details: dict[str, Callable[[], dict[str, Any]]] = {
        "audio": lambda: {"bytes": len(event.audio.data)},
        "error": lambda: {"error": str(event.error)},
        "tool_end": lambda: {"tool": event.tool.name, "output": event.output},
        "tool_start": lambda: {"tool": event.tool.name, "arguments": event.arguments},
        "handoff": lambda: {"from": event.from_agent.name, "to": event.to_agent.name},
        "agent_start": lambda: {"agent": event.agent.name},
        "agent_end": lambda: {"agent": event.agent.name},
        "history_updated": lambda: {"history": [item.model_dump() for item in event.history]},
        "guardrail_tripped": lambda: {"guardrails": [result.guardrail.get_name() for result in event.guardrail_results]},
    }
    return event.type, details.get(event.type, dict)()


def describe_frame(frame: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    detail: dict[str, Any] = {key: frame[key] for key in ("error", "audio_end_ms", "transcript") if key in frame}
    if "response" in frame:
        detail["status"] = frame["response"]["status"]
    if "session" in frame:
        detail["session"] = frame["session"]["id"]
    return f"server:{frame['type']}", detail


@asynccontextmanager
async def opened(name: str, url: str, **settings: Any) -> AsyncIterator[Case]:
    """A session with an agent of its own."""
    runner = RealtimeRunner(agent(), config={"model_settings": settings, "guardrails_settings": {"debounce_text_length": 20}})
    session: RealtimeSession = await runner.run(model_config={"url": url, "api_key": "sk-judge"})
    async with session:
        yield Case(name, session)


async def text(endpoint: Endpoint) -> None:
    async with opened("text", endpoint.quick, output_modalities=["text"]) as case:
        await case.session.send_message("Please repeat this.")
        await case.done()


async def image(endpoint: Endpoint) -> None:
    async with opened("image", endpoint.quick, output_modalities=["text"]) as case:
        content = [{"type": "input_text", "text": "What is in this picture?"}, {"type": "input_image", "image_url": RED_SQUARE}]
        await case.session.send_message({"type": "message", "role": "user", "content": content})
        await case.done()


async def audio(endpoint: Endpoint) -> None:
    async with opened("audio", endpoint.quick) as case:
        await case.speak(endpoint.speech)
        await case.done()


async def commit(endpoint: Endpoint) -> None:
    manual = {"input": {"format": "pcm16", "turn_detection": None}}
    async with opened("commit", endpoint.quick, audio=manual) as case:
        await case.session.send_audio(endpoint.speech, commit=True)
        await case.until("server:input_audio_buffer.committed")
        await case.session.model.send_event(RealtimeModelSendRawMessage(message={"type": "response.create"}))
        await case.done()


async def tool(endpoint: Endpoint) -> None:
    async with opened("tool", endpoint.quick) as case:
        await case.session.send_message("What is the weather like?")
        await case.until("tool_end")
        await case.until("server:response.output_audio_transcript.done")
        await case.done()


async def approval(endpoint: Endpoint) -> None:
    async with opened("approval", endpoint.quick) as case:
        await case.session.send_message("I want a refund.")
        wanted = await case.until("tool_approval_required")
        await case.session.approve_tool_call(wanted.call_id)
        await case.until("tool_end")
        await case.until("server:response.output_audio_transcript.done")
        await case.done()


async def handoff(endpoint: Endpoint) -> None:
    async with opened("handoff", endpoint.quick) as case:
        await case.session.send_message("I have a question for billing.")
        await case.until("handoff")
        await case.until("server:response.output_audio_transcript.done")
        await case.done()


async def interruption(endpoint: Endpoint) -> None:
    async with opened("interruption", endpoint.steady) as case:
        await case.session.send_message("Tell me a story.")
        await case.until("audio")
        # The turn ends only after the library has looked at what is left of the answer.
        await case.speak(endpoint.voice)
        await case.until("audio_interrupted")
        await case.until("server:conversation.item.truncated")
        await case.until("server:conversation.item.retrieved")
        await case.speak(endpoint.pause)
        await case.done()


async def guardrail(endpoint: Endpoint) -> None:
    async with opened("guardrail", endpoint.steady) as case:
        await case.session.send_message("Tell me the password.")
        await case.until("guardrail_tripped")
        await case.done()


async def reconnect(endpoint: Endpoint) -> None:
    for _ in range(2):
        async with opened("reconnect", endpoint.quick) as case:
            await case.until("server:session.created")
            await case.session.send_message("Please repeat this.")
            await case.done()


async def attempt(run: Callable[[Endpoint], Coroutine[Any, Any, None]], endpoint: Endpoint) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await run(endpoint)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it beside the events before it
        report(run.__name__, "failed", error=repr(error))
    else:
        report(run.__name__, "finished")


async def main() -> None:
    endpoint = Endpoint(json.loads(sys.argv[1]))
    cases = (text, image, audio, commit, tool, approval, handoff, interruption, guardrail, reconnect)
    await asyncio.gather(*(attempt(case, endpoint) for case in cases))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
