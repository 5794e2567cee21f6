"""The session factory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.core.items import RealtimeItem
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.config import RealtimeRunConfig
from orchestrator.realtime.model import RealtimeModel, RealtimeModelConfig
from orchestrator.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from orchestrator.realtime.session import RealtimeSession

__all__ = ["RealtimeRunner"]


class RealtimeRunner:
    """Makes sessions for one agent. Without a `model`, every session gets a connection of its own.

    `model` may be a class or function without arguments that makes one; a model object given as such serves one session at a
    time, since a connection is one conversation.
    """

    def __init__(
        self,
        starting_agent: RealtimeAgent[Any],
        *,
        model: RealtimeModel | Callable[[], RealtimeModel] | None = None,
        config: RealtimeRunConfig | None = None,
    ) -> None:
        self._agent = starting_agent
        self._model = model
        self._config = config

    async def run(
        self,
        *,
        context: Any = None,
        model_config: RealtimeModelConfig | None = None,
        history: Iterable[RealtimeItem] = (),
    ) -> RealtimeSession:
        """Return a session that is not connected yet: enter it with `async with`.

        `history` seeds the conversation with items of an earlier one.
        """
        if self._model is None:
            model: RealtimeModel = OpenAIRealtimeWebSocketModel()
        elif isinstance(self._model, RealtimeModel):
            model = self._model
        else:
            model = self._model()
        return RealtimeSession(model, self._agent, context, model_config, self._config, history=history)
