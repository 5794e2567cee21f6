"""One call that was accepted: greet, follow what is said, and do what a tool has asked for once the caller has heard of it."""

from __future__ import annotations

import asyncio
from typing import Any

from examples._transcript import Transcript
from examples.sip.agent import Line
from orchestrator.errors import CallControlError, LegClosedError
from orchestrator.realtime import RealtimeModelSendRawMessage, RealtimeSession, RealtimeSessionEvent
from orchestrator.realtime.events import RealtimeRawModelEvent, RealtimeToolEnd
from orchestrator.realtime.model_events import RealtimeModelRawServerEvent

__all__ = ["SipCall"]

# The longest that the agent may take for the words before a next step; then it happens without them.
LAST_WORDS_SECONDS = 20.0
GREETING = {"response": {"instructions": "Greet the caller in one short sentence and ask what you can do."}}
FAILED = "The caller could not be connected. Say so, and ask what else you can do."


class SipCall:
    """Follows one session until its call is over, whoever ends it."""

    def __init__(self, session: RealtimeSession, line: Line, transcript: Transcript) -> None:
        self._session = session
        self._line = line
        self._transcript = transcript
        # The response that says what happens next; it has no name until the model begins it.
        self._awaited = False
        self._last_words: str | None = None
        # When the next step happens at the latest, as loop time; None while there is none.
        self._deadline: float | None = None

    async def run(self) -> None:
        """Hold the call. Cancelling it leaves the call to the provider; see the README."""
        await self._ask_for(GREETING)
        events = aiter(self._session)
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    event = await anext(events)
            except TimeoutError:
                await self._take_step()
                continue
            except (StopAsyncIteration, LegClosedError):
                # A phone that is put down ends the connection without a word, so this is how calls end.
                self._transcript.note("over")
                return
            self._transcript.take(self._session, event)
            await self._follow(event)

    async def _follow(self, event: RealtimeSessionEvent) -> None:
        match event:
            case RealtimeToolEnd() if self._line.next_step is not None:
                self._awaited = True
                self._deadline = asyncio.get_running_loop().time() + LAST_WORDS_SECONDS
            case RealtimeRawModelEvent(data=RealtimeModelRawServerEvent(data=raw)):
                await self._follow_server(raw)
            case _:
                pass

    async def _follow_server(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "response.created", "response": {"id": response_id}} if self._awaited:
                self._awaited, self._last_words = False, response_id
            case {"type": "output_audio_buffer.stopped", "response_id": self._last_words}:
                await self._take_step()
            case {"type": "output_audio_buffer.cleared", "response_id": self._last_words}:
                self._forget_step()  # The caller has something else to say.
            case {"type": "response.done", "response": {"id": self._last_words, "status": "cancelled"}}:
                self._forget_step()
            case {"type": "input_audio_buffer.dtmf_event_received", "event": key}:
                self._transcript.note(f"  [key {key}]")
            case _:
                pass

    async def _take_step(self) -> None:
        step, name = self._line.next_step, getattr(self._line.next_step, "__name__", "")
        self._forget_step()
        if step is None:
            return
        self._transcript.note(f"  [{name}]")
        try:
            await step()
        except CallControlError as error:
            self._transcript.note(f"  [error: {error.message}]")
            await self._ask_for({"response": {"instructions": FAILED}})

    def _forget_step(self) -> None:
        self._line.next_step, self._awaited, self._last_words, self._deadline = None, False, None, None

    async def _ask_for(self, response: dict[str, Any]) -> None:
        message = RealtimeModelSendRawMessage({"type": "response.create", "other_data": response})
        await self._session.model.send_event(message)
