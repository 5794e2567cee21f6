"""Sessions against a scripted endpoint, on virtual time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.testing.virtual_clock import VirtualClockLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], Any]]:
    del config, item
    return {"virtual": VirtualClockLoop}


OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """The model's side of the test; the official client's types judge everything that it was sent."""
    scripted = ScriptedEndpoint()
    yield scripted
    for event in scripted.received:
        OFFICIAL.validate_python(event)


@pytest.fixture
def make_session(endpoint: ScriptedEndpoint) -> Callable[..., RealtimeSession]:
    def make(agent: RealtimeAgent[Any] | None = None, **options: Any) -> RealtimeSession:
        kind = options.pop("model", OpenAIRealtimeWebSocketModel)
        model = kind(dial=endpoint.dial, response_timeout=options.pop("response_timeout", 15.0))
        config = {"headers": {}} | options.pop("model_config", {})
        return RealtimeSession(
            model,
            agent or RealtimeAgent(name="Assistant"),
            options.pop("context", None),
            config,
            options.pop("run_config", None),
            **options,
        )

    return make
