"""Guardrails on what is said, by the agent and by the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator.decorators import input_guardrail, output_guardrail
from orchestrator.guardrail import GuardrailFunctionOutput, OutputGuardrail
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import Reader

MakeSession = Callable[..., RealtimeSession]
SEEN: list[str] = []


async def sensitive_data_check(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
    await asyncio.sleep(0.02)
    SEEN.append(output)
    return GuardrailFunctionOutput(tripwire_triggered="password" in output, output_info=None)


def guarded(**options: Any) -> RealtimeAgent[Any]:
    SEEN.clear()
    return RealtimeAgent(name="Assistant", output_guardrails=[OutputGuardrail(sensitive_data_check)], **options)


async def test_speech_that_trips_is_stopped_and_corrected_by_one_response(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(guarded()) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("well, " * 20 + "the password is hunter2", 4000)
        await asyncio.sleep(0.5)
        endpoint.speak(" and more, " * 30, 500)
        await asyncio.sleep(0.5)
        (tripped,) = reader.of("guardrail_tripped")
        assert [result.guardrail.get_name() for result in tripped.guardrail_results] == ["sensitive_data_check"]
        assert tripped.message.endswith("hunter2")
        # The correction waits in the conversation; its response waits for the end of the one that tripped.
        assert endpoint.types()[1:] == ["conversation.item.truncate", "response.cancel", "conversation.item.create"]
        assert endpoint.last("response.cancel")["response_id"] == "resp_1"
        text = endpoint.last("conversation.item.create")["item"]["content"][0]["text"]
        assert text == "guardrail triggered: sensitive_data_check"
        endpoint.end_response(status="cancelled")
        await endpoint.settle()
        assert endpoint.types()[-1] == "response.create"
        assert len(reader.of("audio")) == 1


async def test_a_short_answer_is_checked_when_it_is_done(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(guarded()) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("password: x", 2000)
        await asyncio.sleep(0.1)
        assert SEEN == []
        endpoint.end_response()
        await asyncio.sleep(0.1)
        assert SEEN == ["password: x"]
        assert len(reader.of("guardrail_tripped")) == 1
        # The response is over, so there is nothing to cancel; what is still being played is cut.
        assert endpoint.types()[1:] == ["conversation.item.truncate", "conversation.item.create", "response.create"]


async def test_no_correction_is_sent_after_a_newer_response_has_begun(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    release = asyncio.Event()

    @output_guardrail(name="slow")
    async def slow(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
        await release.wait()
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    async with make_session(RealtimeAgent(name="A", output_guardrails=[slow])) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("hm", 2000)
        endpoint.end_response()
        endpoint.start_response("resp_2")
        await endpoint.settle()
        release.set()
        await endpoint.settle()
        assert len(reader.of("guardrail_tripped")) == 1
        assert "conversation.item.create" not in endpoint.types()
        assert "response.cancel" not in endpoint.types()


async def test_written_text_that_trips_is_cancelled_without_touching_playback(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(guarded(), run_config={"guardrails_settings": {"debounce_text_length": 5}}) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.send(
            "response.output_text.delta",
            response_id="resp_1",
            item_id="item_t",
            output_index=0,
            content_index=0,
            delta="the password",
        )
        await asyncio.sleep(0.1)
        assert endpoint.types()[1:] == ["response.cancel", "conversation.item.create"]
        assert reader.of("audio_interrupted") == []


async def test_checks_are_debounced_and_see_all_that_was_said(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(guarded(), run_config={"guardrails_settings": {"debounce_text_length": 10}}):
        endpoint.start_response()
        for _ in range(6):
            endpoint.speak("abcd", 20)
        await asyncio.sleep(0.1)
        assert SEEN == ["abcd" * 3, "abcd" * 5]
        endpoint.end_response()
        await asyncio.sleep(0.1)
        assert SEEN[2:] == ["abcd" * 6]


async def test_guardrails_of_agent_and_run_are_asked_each_once_and_a_broken_one_is_no_verdict(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    asked: list[str] = []

    @output_guardrail
    def shared(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
        asked.append("shared")
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    @output_guardrail
    async def broken(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
        asked.append("broken")
        raise ValueError("guardrail")

    agent: RealtimeAgent[Any] = RealtimeAgent(name="A", output_guardrails=[shared])
    async with make_session(agent, run_config={"output_guardrails": [broken, shared]}) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("hello", 20)
        endpoint.end_response()
        await asyncio.sleep(0.1)
        assert asked == ["shared", "broken"]
        assert [str(event.error) for event in reader.of("error")] == ["guardrail"]
        assert reader.of("guardrail_tripped") == []


async def test_what_the_user_says_is_checked_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    @input_guardrail(name="manners")
    async def manners(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered="rude" in text)

    async with make_session(RealtimeAgent(name="A", input_guardrails=[manners])) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("sure, ", 1000)
        endpoint.send(
            "conversation.item.input_audio_transcription.completed", item_id="item_u", content_index=0, transcript="how rude"
        )
        await asyncio.sleep(0.1)
        (tripped,) = reader.of("guardrail_tripped")
        assert tripped.message == "how rude"
        assert endpoint.types()[1:] == ["conversation.item.truncate", "response.cancel", "conversation.item.create"]
