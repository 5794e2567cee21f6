"""How a session reaches its endpoint: URL, key, headers, tuning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import LegConnectError, OrchestratorError, UserError
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeRunner, RealtimeSession
from orchestrator.realtime.items import InputText, UserMessageItem
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.transports.base import LegOptions

MakeSession = Callable[..., RealtimeSession]
AGENT: RealtimeAgent[Any] = RealtimeAgent(name="Desk")


async def enter(endpoint: ScriptedEndpoint, config: Any, **model: Any) -> RealtimeSession:
    runner = RealtimeRunner(AGENT, model=lambda: OpenAIRealtimeWebSocketModel(dial=endpoint.dial, **model))
    return await (await runner.run(model_config=config)).enter()


async def a_key() -> str:
    return "sk-from-a-vault"


@pytest.mark.parametrize(("key", "sent"), [("sk-text", "sk-text"), (lambda: "sk-made", "sk-made"), (a_key, "sk-from-a-vault")])
async def test_the_key_is_text_or_comes_from_a_function(endpoint: ScriptedEndpoint, key: Any, sent: str) -> None:
    session = await enter(endpoint, {"api_key": key})
    await session.close()
    assert endpoint.headers == {"Authorization": f"Bearer {sent}"}
    assert endpoint.url == "wss://api.openai.com/v1/realtime?model=gpt-realtime-2.1"


async def test_the_key_comes_from_the_environment_or_is_missed_by_name(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="API key is required"):
        await enter(endpoint, {})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    session = await enter(endpoint, {})
    await session.close()
    assert endpoint.headers == {"Authorization": "Bearer sk-env"}


async def test_headers_are_used_as_they_are(endpoint: ScriptedEndpoint) -> None:
    url = "wss://me.openai.azure.com/openai/v1/realtime?model=deployment"
    session = await enter(endpoint, {"url": url, "headers": {"api-key": "azure"}})
    await session.close()
    assert (endpoint.url, endpoint.headers) == (url, {"api-key": "azure"})


async def test_the_models_name_is_part_of_the_address(endpoint: ScriptedEndpoint) -> None:
    session = await enter(endpoint, {"headers": {}, "initial_model_settings": {"model_name": "gpt realtime/x"}})
    await session.close()
    assert endpoint.url.endswith("?model=gpt%20realtime/x")


async def test_the_transport_can_be_tuned(endpoint: ScriptedEndpoint) -> None:
    seen: list[LegOptions] = []

    async def dial(*arguments: Any, **options: Any) -> Any:
        seen.append(options["options"])
        return await endpoint.dial(*arguments, **options)

    tuned = {"ping_interval": None, "ping_timeout": 7.0, "handshake_timeout": 3.0, "max_size": 1_000_000}
    model = OpenAIRealtimeWebSocketModel(dial=dial, transport_config=tuned)  # type: ignore[arg-type]
    await model.connect({"headers": {}})
    await model.close()
    (options,) = seen
    assert (options.ping_interval, options.ping_timeout, options.open_timeout, options.max_message) == (
        None,
        7.0,
        3.0,
        1_000_000,
    )


async def test_a_failed_connection_leaves_nothing_behind_and_can_be_tried_again(endpoint: ScriptedEndpoint) -> None:
    fail = True

    async def dial(*arguments: Any, **options: Any) -> Any:
        if fail:
            raise LegConnectError("refused", 503)
        return await endpoint.dial(*arguments, **options)

    model = OpenAIRealtimeWebSocketModel(dial=dial)
    with pytest.raises(LegConnectError):
        await model.connect({"headers": {}})
    with pytest.raises(UserError, match="not connected"):
        model.send_nowait(None)  # type: ignore[arg-type]
    fail = False
    await model.connect({"headers": {}})
    with pytest.raises(UserError, match="connected already"):
        await model.connect({"headers": {}})
    await model.close()
    await model.connect({"headers": {}})
    await model.close()


async def test_a_session_that_cannot_connect_can_be_closed(make_session: Callable[..., RealtimeSession]) -> None:
    session = make_session(model_config={"headers": {}, "call_id": "rtc_1", "initial_model_settings": {"model_name": "x"}})
    with pytest.raises(UserError, match="Cannot specify both"):
        await session.enter()
    await session.close()


async def test_a_history_that_cannot_be_sent_leaves_no_connection(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    bad: Any = UserMessageItem(item_id="u1", content=(InputText(text=5),))  # type: ignore[arg-type]
    session = make_session(history=[bad])
    with pytest.raises(OrchestratorError):
        await session.enter()
    await endpoint.settle()
    assert endpoint.closed is not None


async def test_closing_while_the_connection_is_being_opened_leaves_none(endpoint: ScriptedEndpoint) -> None:
    async def slow_dial(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(1)
        return await endpoint.dial(*arguments, **options)

    model = OpenAIRealtimeWebSocketModel(dial=slow_dial)
    session = RealtimeSession(model, RealtimeAgent(name="A"), model_config={"headers": {}})
    entering = asyncio.create_task(session.enter())
    await asyncio.sleep(0.5)
    await session.close()
    with pytest.raises(UserError, match="closed"):
        await entering
    await endpoint.settle()
    assert endpoint.closed is not None
