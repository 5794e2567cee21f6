"""The two addresses that the carrier calls: the webhook of a call, and the stream that our answer to it asks for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from examples._serving import head_of, refused
from examples._transcript import Transcript
from examples.twilio.agent import PhoneCaller
from examples.twilio.call import PhoneCall
from examples.twilio.stream import MediaStream
from orchestrator.errors import OrchestratorError, WireError
from orchestrator.gateway import twiml
from orchestrator.gateway.authentication import CarrierDoor
from orchestrator.gateway.request_body import MAX_BODY, parse_form
from orchestrator.http_server.answers import Headers, Refusal
from orchestrator.http_server.request_body import body_length
from orchestrator.http_server.request_head import RequestHead
from orchestrator.realtime import RealtimeModelConfig, RealtimeRunner
from orchestrator.realtime.mark_playback import MarkPlaybackTracker
from orchestrator.settings import Secret
from orchestrator.stream_token import StreamTokens

__all__ = ["INCOMING_CALL", "MEDIA_STREAM", "PhoneDesk"]

INCOMING_CALL = "/incoming-call"
MEDIA_STREAM = "/media-stream"
WELCOME = "One moment, please."
# The carrier sends `start` right after its handshake.
START_SECONDS = 10.0
# Why we close a stream, in the codes of RFC 6455 and its registry.
ENDED, BROKEN, REFUSED, FAILED, FULL = 1000, 1007, 1008, 1011, 1013


class PhoneDesk:
    """Takes calls, `max_calls` at once; one runner makes their sessions. Bound to one event loop.

    `door` checks the carrier's signatures; `public_url` is where the carrier reaches us, never taken from a request.
    """

    def __init__(
        self,
        runner: RealtimeRunner,
        model_config: RealtimeModelConfig,
        *,
        door: CarrierDoor,
        public_url: str,
        max_calls: int = 20,
        write: Callable[[str], None] = print,
    ) -> None:
        self._runner = runner
        self._model_config = model_config
        self._door = door
        # http becomes ws, https becomes wss.
        self._stream_url = f"ws{public_url.removeprefix('http').rstrip('/')}{MEDIA_STREAM}"
        # What binds a stream to its webhook: the stream's own words about the call could be anybody's.
        self._tokens = StreamTokens(Secret(secrets.token_hex(32)))
        self._max_calls = max_calls
        self._write = write
        self._numbers = count(1)
        self.calls = 0

    def app(self) -> Starlette:
        """Return the web application."""
        return Starlette(
            routes=[
                Route(INCOMING_CALL, self.incoming_call, methods=["GET", "POST"]),
                WebSocketRoute(MEDIA_STREAM, self.media_stream),
            ]
        )

    async def incoming_call(self, request: Request) -> Response:
        """Tell the carrier what to do with a call that rings."""
        head = head_of(request)
        # The account says whether the carrier asks by GET, with all in the address, or by POST, with a form.
        form = await _form_of(request, head) if head.method == "POST" else ()
        if isinstance(form, Refusal):
            return refused(form)
        refusal = self._door.check_form(head, form)
        if refusal is not None:
            return refused(refusal)
        call_sid = dict(form or head.query).get("CallSid")
        if not call_sid:
            return refused(Refusal(status=400, code="no_call", message="the webhook of a call has its CallSid"))
        if self.calls >= self._max_calls:
            return Response(twiml.reject_busy(), media_type=twiml.CONTENT_TYPE)
        token = self._tokens.issue(call_sid, time.time())
        return Response(twiml.connect_stream(self._stream_url, token, say=WELCOME), media_type=twiml.CONTENT_TYPE)

    async def media_stream(self, socket: WebSocket) -> None:
        """Hold one call, from the stream's opening to its end."""
        refusal = self._door.check_upgrade(head_of(socket))
        if refusal is not None:
            await socket.send_denial_response(refused(refusal))
            return
        await socket.accept()
        stream = MediaStream(socket)
        if self.calls >= self._max_calls:
            await stream.close(FULL)
            return
        self.calls += 1
        transcript = Transcript(f"[call {next(self._numbers)}]", self._write)
        try:
            code = await self._hold(stream, transcript)
        except WireError as error:
            transcript.note(f"refused: {error.message}")
            code = BROKEN
        except OrchestratorError as error:
            transcript.note(f"failed: {error.message}")
            code = FAILED
        finally:
            self.calls -= 1
        await stream.close(code)

    async def _hold(self, stream: MediaStream, transcript: Transcript) -> int:
        """Hold a call; return the code to close its stream with."""
        start = None
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                start = await stream.wait_for_start()
        if start is None:
            return REFUSED
        if not self._tokens.redeem(start.custom_parameters.get("token", ""), start.call_sid, time.time()):
            transcript.note("refused: the stream was not announced by our answer to the call's webhook")
            return REFUSED
        transcript.note("begins")
        tracker = MarkPlaybackTracker()
        config: RealtimeModelConfig = {**self._model_config, "playback_tracker": tracker}
        # The block's end closes the session, whichever side has gone.
        async with await self._runner.run(context=PhoneCaller(start.call_sid), model_config=config) as session:
            ended_by = await PhoneCall(stream, session, tracker, transcript).run()
        transcript.note(f"ended by {ended_by}")
        return ENDED


async def _form_of(request: Request, head: RequestHead) -> Headers | Refusal:
    length = body_length(head, MAX_BODY)
    # The server hands over as many bytes as were announced, and no more.
    return length if isinstance(length, Refusal) else parse_form(head, await request.body())
