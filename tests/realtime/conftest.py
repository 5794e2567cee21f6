"""Sessions against a scripted endpoint, on virtual time."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.testing.virtual_clock import VirtualClockLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], Any]]:
    del config, item
    return {"virtual": VirtualClockLoop}


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def make_session(endpoint: ScriptedEndpoint) -> Callable[..., RealtimeSession]:
    def make(agent: RealtimeAgent[Any] | None = None, **options: Any) -> RealtimeSession:
        model = OpenAIRealtimeWebSocketModel(dial=endpoint.dial, response_timeout=options.pop("response_timeout", 15.0))
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
