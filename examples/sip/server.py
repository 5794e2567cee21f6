"""The address that the provider calls when a phone rings, and the calls that were taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from examples._serving import head_of, refused
from examples._transcript import Transcript
from examples.sip.agent import Line
from examples.sip.call import SipCall
from orchestrator.errors import CallControlError, OrchestratorError, WebhookSignatureError, WireError
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_body import body_length
from orchestrator.realtime import (
    OpenAIRealtimeSIPModel,
    RealtimeAgent,
    RealtimeModelConfig,
    RealtimeRunConfig,
    RealtimeRunner,
    RealtimeSessionModelSettings,
)
from orchestrator.realtime.calls import RealtimeCalls
from orchestrator.realtime.openai_realtime import Dial
from orchestrator.realtime.webhooks import IncomingCall, SeenWebhooks, unwrap
from orchestrator.transports.opening import connect

__all__ = ["WEBHOOK", "SipDesk"]

WEBHOOK = "/openai/webhook"
MAX_BODY = 64 * 1024
# Calls that are turned away take a moment too; beyond so many at once the provider shall ask again later.
TURNED_AWAY = 100
BUSY_HERE = 486


class SipDesk:
    """Takes calls, `max_calls` at once; one runner makes their sessions. Bound to one event loop.

    `secret` is the webhook's. `url` is where sessions are joined, without a query, if not at the OpenAI API; `api_key` then is
    the key for it. `person` is where callers go who ask for one ("tel:+1..." or "sip:..."). `model` is the name of the model.
    """

    def __init__(
        self,
        agent: RealtimeAgent[Line],
        run_config: RealtimeRunConfig,
        calls: RealtimeCalls,
        *,
        secret: str,
        url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        person: str | None = None,
        max_calls: int = 20,
        write: Callable[[str], None] = print,
        dial: Dial = connect,
    ) -> None:
        self._agent = agent
        self._run_config = run_config
        self._runner = RealtimeRunner(agent, model=lambda: OpenAIRealtimeSIPModel(dial=dial), config=run_config)
        self._calls = calls
        self._secret = secret
        self._url = url
        self._api_key = api_key
        # Who accepts a call chooses its model; who joins it has to take that one.
        self._overrides: RealtimeSessionModelSettings = {"model_name": model} if model else {}
        self._person = person
        self._max_calls = max_calls
        self._write = write
        self._seen = SeenWebhooks()
        self._numbers = count(1)
        self._turned_away: set[asyncio.Task[None]] = set()
        # By the id of the call.
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def calls(self) -> int:
        """How many calls there are now."""
        return len(self._tasks)

    def app(self) -> Starlette:
        """Return the web application."""
        return Starlette(
            routes=[
                Route("/", self.status, methods=["GET"]),
                Route(WEBHOOK, self.webhook, methods=["POST"]),
            ]
        )

    async def aclose(self, *, hang_up: bool = False) -> None:
        """Leave all calls. They go on at the provider, with the agent but without its tools, unless `hang_up`."""
        call_ids = list(self._tasks)
        tasks = [*self._tasks.values(), *self._turned_away]
        if hang_up:
            # One that has ended meanwhile, or cannot be reached, is nobody else's trouble.
            await asyncio.gather(*map(self._calls.hang_up, call_ids), return_exceptions=True)
        elif call_ids:
            self._write("1 call goes on without us" if len(call_ids) == 1 else f"{len(call_ids)} calls go on without us")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def status(self, request: Request) -> Response:
        """Say that we are here."""
        del request
        return JSONResponse({"status": "ok"})

    async def webhook(self, request: Request) -> Response:
        """Take a webhook: 200 for whatever is genuine, at once, since the provider repeats what is not answered soon."""
        length = body_length(head_of(request), MAX_BODY)
        if isinstance(length, Refusal):
            return refused(length)
        try:
            event = unwrap(await request.body(), request.headers, self._secret)
        except (WebhookSignatureError, WireError) as error:
            return PlainTextResponse(f"{error.message}\n", status_code=400)
        if not isinstance(event, IncomingCall):
            return PlainTextResponse("no call\n")
        if len(self._turned_away) >= TURNED_AWAY:
            return PlainTextResponse("too many calls\n", status_code=503, headers={"Retry-After": "5"})
        # The same call may be announced again, under the same id or a new one.
        if self._seen.is_new(event) and event.call_id not in self._tasks:
            self._take(event)
        return PlainTextResponse("taken\n")

    def _take(self, call: IncomingCall) -> None:
        transcript = Transcript(f"[call {next(self._numbers)}]", self._write)
        if len(self._tasks) >= self._max_calls:
            task = asyncio.create_task(self._turn_away(call, transcript), name=f"reject {call.call_id}")
            self._turned_away.add(task)
            task.add_done_callback(self._turned_away.discard)
            return
        task = asyncio.create_task(self._answer(call, transcript), name=f"call {call.call_id}")
        self._tasks[call.call_id] = task

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[call.call_id]
            if not task.cancelled() and (error := task.exception()) is not None:
                transcript.note(f"failed: {error!r}")

        task.add_done_callback(ended)

    async def _answer(self, call: IncomingCall, transcript: Transcript) -> None:
        """Accept a call, join it and hold it to its end."""
        # What the caller's side claims of itself: good for a greeting, and for nothing that matters.
        transcript.note(f"rings: {call.sip_header('From') or 'unknown'}")
        line = Line(call.call_id, self._calls, self._person)
        try:
            settings = await OpenAIRealtimeSIPModel.build_initial_session_payload(
                self._agent, context=line, run_config=self._run_config, overrides=self._overrides
            )
            await self._calls.accept(call.call_id, settings)
            async with await self._runner.run(context=line, model_config=self._model_config(call)) as session:
                await SipCall(session, line, transcript).run()
        except CallControlError as error:
            gone = error.status == 404
            transcript.note("the caller had gone" if gone else f"not accepted: {error.message}")
        except OrchestratorError as error:
            # It was accepted, so the caller hears silence where nobody speaks.
            transcript.note(f"failed: {error.message}")
            await self._calls.hang_up(call.call_id)

    async def _turn_away(self, call: IncomingCall, transcript: Transcript) -> None:
        try:
            await self._calls.reject(call.call_id, BUSY_HERE)
            transcript.note("turned away: all lines are busy")
        except CallControlError as error:
            transcript.note(f"not turned away: {error.message}")

    def _model_config(self, call: IncomingCall) -> RealtimeModelConfig:
        config: RealtimeModelConfig = {"call_id": call.call_id}
        if self._url is not None:
            config["url"] = f"{self._url}?call_id={quote(call.call_id, safe='')}"
        if self._api_key is not None:
            config["api_key"] = self._api_key
        return config
