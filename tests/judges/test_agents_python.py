"""The official Python agents library, unmodified and in an environment of its own, judges the endpoint."""

from __future__ import annotations

import asyncio
import base64

import pytest

from orchestrator.simulator.audio import Encoding
from tests.judges.support import (
    HERE,
    ROOT,
    SPOKEN,
    Verdict,
    assert_cut_short,
    assert_silent_at_once,
    assert_spoken,
    assert_without_complaint,
    judge,
)

PYTHON = ROOT / ".venv-judges" / "bin" / "python"
CASES = ("text", "image", "audio", "commit", "tool", "approval", "handoff", "interruption", "guardrail", "reconnect")


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """All cases at once, in one process: starting the library takes longer than all of them."""
    assert PYTHON.exists(), "the judges have no environment yet: make judges"
    # Every warning of the interpreter is an error, as in our own tests.
    command = [str(PYTHON), "-W", "error", str(HERE / "agents_python" / "program.py")]
    return asyncio.run(judge(command, tmp_path_factory.mktemp("judge")))


def test_it_has_no_complaint(verdict: Verdict) -> None:
    assert_without_complaint(verdict, CASES)


def test_a_text_turn(verdict: Verdict) -> None:
    assert verdict.told("text") == [("user", "Please repeat this."), ("assistant", "You said: Please repeat this.")]
    assert "server:response.output_text.delta" in verdict.labels("text")
    assert "audio" not in verdict.labels("text")


def test_an_image(verdict: Verdict) -> None:
    assert verdict.told("image") == [("user", "What is in this picture?"), ("assistant", "A small red square.")]
    assert verdict.history("image")[0]["content"][1]["image_url"].startswith("data:image/png;base64,")


def test_a_spoken_turn(verdict: Verdict) -> None:
    assert verdict.told("audio") == [("user", SPOKEN), ("assistant", "Yes, I can hear you very well.")]
    assert_spoken(verdict, "audio", "Yes, I can hear you very well.")
    assert "audio_end" in verdict.labels("audio")


def test_a_turn_that_the_client_ends(verdict: Verdict) -> None:
    assert verdict.told("commit") == [("user", SPOKEN), ("assistant", "Yes, I can hear you very well.")]
    assert "server:input_audio_buffer.speech_started" not in verdict.labels("commit")
    assert_spoken(verdict, "commit", "Yes, I can hear you very well.")


def test_a_tool_call(verdict: Verdict) -> None:
    assert verdict.one("tool", "tool_start")["arguments"] == '{"city":"Oslo"}'
    sunny = "It is sunny in Oslo, twenty one degrees."
    assert verdict.one("tool", "tool_end")["output"] == sunny
    assert verdict.told("tool")[1:] == [("get_weather", sunny), ("assistant", sunny)]
    assert_spoken(verdict, "tool", sunny)


def test_a_tool_call_that_needs_approval(verdict: Verdict) -> None:
    labels = verdict.labels("approval")
    assert labels.index("tool_approval_required") < labels.index("tool_start") < labels.index("tool_end")
    assert_spoken(verdict, "approval", "Invoice 88 is paid back.")


def test_a_handoff(verdict: Verdict) -> None:
    handoff = verdict.one("handoff", "handoff")
    assert (handoff["from"], handoff["to"]) == ("reception", "billing")
    assert [event["agent"] for event in verdict.of("handoff", "agent_start")] == ["reception", "billing"]
    assert_spoken(verdict, "handoff", "Billing speaking, how can I help?")


def test_an_interruption(verdict: Verdict) -> None:
    truncated = assert_cut_short(verdict, "interruption")
    assert_silent_at_once(verdict, "interruption")
    assert [event["agent"] for event in verdict.of("interruption", "agent_end")][:1] == ["reception"]
    story, question, answer = verdict.history("interruption")[1:]
    # The library asks for the item anew once it is cut, so this is what the endpoint still has of it.
    (part,) = story["content"]
    assert story["status"] == "incomplete"
    assert len(base64.b64decode(part["audio"])) == truncated["audio_end_ms"] * Encoding.PCM16.bytes_per_ms
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert answer["content"][0]["transcript"] == "Very well, I have stopped."


def test_a_guardrail(verdict: Verdict) -> None:
    assert verdict.one("guardrail", "guardrail_tripped")["guardrails"] == ["no_swordfish"]
    assert_cut_short(verdict, "guardrail")
    assert verdict.told("guardrail")[-1] == ("assistant", "I am sorry, I cannot talk about that.")


def test_a_second_connection(verdict: Verdict) -> None:
    first, second = (event["session"] for event in verdict.of("reconnect", "server:session.created"))
    assert first != second
    assert verdict.statuses("reconnect") == ["completed", "completed"]
