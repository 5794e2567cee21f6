"""Joining a call that reached the provider over SIP."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.realtime import RealtimeSessionCreateRequest

from orchestrator import function_tool
from orchestrator.errors import UserError
from orchestrator.realtime import RealtimeAgent, RealtimeRunner
from orchestrator.realtime.openai_realtime import OpenAIRealtimeSIPModel
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint


@function_tool
def lookup(order: str) -> str:
    return order


AGENT: RealtimeAgent[Any] = RealtimeAgent(name="Desk", instructions="Be brief.", tools=[lookup])


async def test_a_session_attaches_to_the_call_of_the_webhook(endpoint: ScriptedEndpoint) -> None:
    runner = RealtimeRunner(AGENT, model=lambda: OpenAIRealtimeSIPModel(dial=endpoint.dial))
    async with await runner.run(model_config={"call_id": "rtc_1", "api_key": "sk-test"}):
        await endpoint.settle()
        assert endpoint.url == "wss://api.openai.com/v1/realtime?call_id=rtc_1"
        assert endpoint.headers["Authorization"] == "Bearer sk-test"
        session = endpoint.last("session.update")["session"]
        # The provider negotiated the audio with the carrier.
        assert "format" not in session["audio"]["input"]
        assert session["instructions"] == "Be brief."
        # So was the model, by who accepted the call; ours may be another.
        assert "model" not in session


async def test_a_call_is_needed_and_has_its_model_already(endpoint: ScriptedEndpoint) -> None:
    for config, match in [
        ({"headers": {}}, "needs `call_id`"),
        ({"headers": {}, "call_id": "rtc_1", "initial_model_settings": {"model_name": "x"}}, "Cannot specify both"),
    ]:
        with pytest.raises(UserError, match=match):
            await OpenAIRealtimeSIPModel(dial=endpoint.dial).connect(config)  # type: ignore[arg-type]
    assert endpoint.url == ""


async def test_the_payload_to_accept_a_call_with_is_what_the_session_would_send() -> None:
    payload = await OpenAIRealtimeSIPModel.build_initial_session_payload(
        AGENT,
        run_config={"model_settings": {"model_name": "gpt-realtime", "voice": "sage"}},
        overrides={"instructions": "Greet first."},
    )
    assert payload["instructions"] == "Greet first."
    assert payload["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "sage"}
    assert [tool["name"] for tool in payload["tools"]] == ["lookup"]
    RealtimeSessionCreateRequest.model_validate(payload)
