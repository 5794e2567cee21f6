"""Guardrails on what is said, by the agent and by the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator.decorators import input_guardrail, output_guardrail
from orchestrator.guardrail import GuardrailFunctionOutput, OutputGuardrail
from orchestrator.realtime import RealtimeAgent, RealtimePlaybackTracker, RealtimeSession
from orchestrator.realtime.items import AssistantAudio, AssistantMessageItem
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


def blocked(session: RealtimeSession, item_id: str = "item_a") -> AssistantMessageItem:
    (item,) = [item for item in session.history if item.item_id == item_id]
    assert isinstance(item, AssistantMessageItem)
    return item


async def test_what_was_heard_before_a_guardrail_tripped_stays_in_the_history_and_is_marked(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(guarded()) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("The password is hunter2.", 1000)
        endpoint.end_response()
        await asyncio.sleep(2)
        assert "conversation.item.truncate" in endpoint.types()
        item = blocked(session)
        assert item.guardrails == ("sensitive_data_check",)
        assert reader.of("history_updated")[-1].history[-1].guardrails == ("sensitive_data_check",)


async def test_a_message_that_was_heard_to_its_end_is_corrected_and_not_denied(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    tracker = RealtimePlaybackTracker()
    async with make_session(guarded(), model_config={"playback_tracker": tracker}) as session:
        endpoint.start_response()
        endpoint.speak("The password is hunter2.", 1000)
        await endpoint.settle()
        tracker.on_play_ms("item_a", 0, 1000)
        endpoint.end_response()
        await asyncio.sleep(0.1)
        # Nothing is left to be cut: what the caller heard, the model has to know too.
        assert endpoint.types()[1:] == ["conversation.item.create", "response.create"]
        text = endpoint.last("conversation.item.create")["item"]["content"][0]["text"]
        assert text.startswith("guardrail triggered: sensitive_data_check")
        assert "has heard" in text
        item = blocked(session)
        assert item.guardrails == ("sensitive_data_check",)
        part = item.content[0]
        assert isinstance(part, AssistantAudio)
        assert (part.transcript, part.heard_ms) == ("The password is hunter2.", None)
        # The mark outlives what the model reports of the item later.
        report = {"id": "item_a", "type": "message", "role": "assistant", "status": "completed", "content": []}
        endpoint.send("conversation.item.done", previous_item_id=None, item=report)
        await endpoint.settle()
        assert blocked(session).guardrails == ("sensitive_data_check",)


async def test_a_response_that_goes_on_is_cut_at_what_was_sent_also_when_all_of_that_was_heard(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    tracker = RealtimePlaybackTracker()
    async with make_session(guarded(), model_config={"playback_tracker": tracker}) as session:
        endpoint.start_response()
        endpoint.speak("well, " * 20 + "the password", 1000)
        await endpoint.settle()
        tracker.on_play_ms("item_a", 0, 1000)
        await asyncio.sleep(0.1)
        # The model has made more than it sent by now, and would remember that as said.
        assert endpoint.types()[1:] == ["conversation.item.truncate", "response.cancel", "conversation.item.create"]
        assert endpoint.last("conversation.item.truncate")["audio_end_ms"] == 1000
        await session.interrupt()
        await endpoint.settle()
        assert endpoint.types().count("conversation.item.truncate") == 1
        part = blocked(session).content[0]
        assert isinstance(part, AssistantAudio)
        assert part.heard_ms == 1000


async def test_a_barge_in_into_a_pause_of_the_agent_cuts_what_the_server_still_makes(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session() as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.speak("one two", 400)
        await asyncio.sleep(1)
        endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
        await endpoint.settle()
        assert endpoint.last("conversation.item.truncate")["audio_end_ms"] == 400
        assert reader.of("audio_interrupted")[0].cut.heard_ms == 400
        assert blocked(session).status == "incomplete"


async def test_written_text_that_trips_is_marked_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(guarded()) as session:
        endpoint.start_response()
        place = {"response_id": "resp_1", "output_index": 0}
        item: dict[str, Any] = {"id": "item_t", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        endpoint.send("response.output_item.added", item=item, **place)
        endpoint.send("response.output_text.delta", item_id="item_t", content_index=0, delta="the password", **place)
        endpoint.end_response()
        await asyncio.sleep(0.1)
        assert blocked(session, "item_t").guardrails == ("sensitive_data_check",)
        text = endpoint.last("conversation.item.create")["item"]["content"][0]["text"]
        assert text == "guardrail triggered: sensitive_data_check"
