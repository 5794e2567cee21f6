"""The web server of the example: the page's files, and a WebSocket for each conversation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from examples.web import protocol
from examples.web.agents import Traveller, reception, run_config
from examples.web.conversation import Conversation, PagePlayback
from examples.web.guard import LOOPBACK, Guard
from examples.web.protocol import BadMessage
from orchestrator.errors import OrchestratorError
from orchestrator.realtime import RealtimeModelConfig, RealtimeRunner

__all__ = ["ENDED", "FAILED", "FULL", "TURNED_AWAY", "Desk", "create_app"]

STATIC = Path(__file__).with_name("static")
MAX_ID = 64
# Why we close a WebSocket, in the codes of RFC 6455 and its registry.
ENDED, TURNED_AWAY, FAILED, FULL = 1000, 1008, 1011, 1013


class Desk:
    """Lets pages in, each with a session of its own; one runner makes them all. Bound to one event loop."""

    def __init__(self, runner: RealtimeRunner, model_config: RealtimeModelConfig, *, max_sessions: int) -> None:
        self._runner = runner
        self._model_config = model_config
        self._max_sessions = max_sessions
        self._sessions: set[str] = set()

    @property
    def sessions(self) -> int:
        """How many conversations there are now."""
        return len(self._sessions)

    async def serve(self, websocket: WebSocket) -> None:
        """Hold one conversation, from the WebSocket's opening to its end."""
        session_id: str = websocket.path_params["session_id"]
        # Accepted first: a browser tells its page nothing of why a WebSocket was refused, only of why it was closed.
        await websocket.accept()
        refused = self._refusal(session_id)
        if refused is not None:
            await _close(websocket, *refused)
            return
        self._sessions.add(session_id)
        try:
            await self._converse(websocket)
        finally:
            self._sessions.discard(session_id)

    def _refusal(self, session_id: str) -> tuple[int, BadMessage] | None:
        if not session_id.isascii() or len(session_id) > MAX_ID:
            return TURNED_AWAY, BadMessage(f"a session id is at most {MAX_ID} characters of ASCII")
        if session_id in self._sessions:
            return TURNED_AWAY, BadMessage("this session id is in use: choose another")
        if len(self._sessions) >= self._max_sessions:
            return FULL, BadMessage("all lines are busy: try again later")
        return None

    async def _converse(self, websocket: WebSocket) -> None:
        playback = PagePlayback()
        config: RealtimeModelConfig = {**self._model_config, "playback_tracker": playback}
        detection = run_config["model_settings"]["turn_detection"] or {}
        try:
            # The block's end closes the session, whichever side has gone.
            async with await self._runner.run(context=Traveller(), model_config=config) as session:
                if not await Conversation(websocket, session, playback, detection).run():
                    return
        except OrchestratorError as error:
            await _close(websocket, FAILED, error)
        else:
            await _close(websocket, ENDED)


def create_app(
    model_config: RealtimeModelConfig, *, names: Iterable[str] = LOOPBACK, max_sessions: int = 32, desk: Desk | None = None
) -> Guard:
    """Return the ASGI application. `names` are the host names under which browsers may ask for it."""
    desk = desk or Desk(RealtimeRunner(reception, config=run_config), model_config, max_sessions=max_sessions)
    routes = [
        WebSocketRoute("/ws/{session_id}", desk.serve),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    return Guard(Starlette(routes=routes), names)


async def _close(websocket: WebSocket, code: int, error: OrchestratorError | None = None) -> None:
    """Say why and close. A page that is gone already needs neither."""
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    try:
        if error is not None:
            await websocket.send_text(protocol.encode(protocol.error_message(error)))
        await websocket.close(code)
    except WebSocketDisconnect:
        pass
