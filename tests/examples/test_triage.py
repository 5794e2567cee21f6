"""The triage example, run as its README says."""

from __future__ import annotations

import argparse

import pytest

from examples._endpoint import open_endpoint
from examples.triage.__main__ import SCENARIO
from orchestrator.simulator.scenario import load_scenario
from tests.examples import stranger

ANSWERS = {"approved": "y\n", "refused": "perhaps\nn\n", "unattended": ""}
ASKED = '  [Billing wants to run refund_invoice {"invoice":"88"}] approve? [y/n] '
THERE = ["Triage: I connect you with billing.", "  [handoff Triage -> Billing]", "Billing: Billing here."]
BACK = ["  [handoff Billing -> Triage]", "Triage: This is triage again. Anything else?"]
REFUSED = "A colleague has looked at this and refused it."


@pytest.fixture(scope="module")
def calls() -> dict[str, tuple[int, str, str]]:
    """The same call three times at once, with other answers of the person at the terminal."""
    started = {name: stranger.start("examples.triage", "--offline", typed=typed) for name, typed in ANSWERS.items()}
    return {name: stranger.finish(process) for name, process in started.items()}


def part(output: str, first: str) -> list[str]:
    """Return the lines that follow this sentence of the customer, up to the next one."""
    lines = output.partition(f"Customer: {first}")[2].partition("Customer:")[0]
    return lines.strip("\n").split("\n")[1:]


@pytest.mark.parametrize("name", ANSWERS)
def test_it_says_whom_it_talks_to_and_ends_well(calls: dict[str, tuple[int, str, str]], name: str) -> None:
    status, output, errors = calls[name]
    assert (status, errors) == (0, "")
    assert output.startswith("Talking to the offline endpoint at ws://127.0.0.1:")
    assert "[error" not in output
    assert output.endswith("Customer: Thank you, goodbye.\nTriage: Goodbye!\n")


def test_an_approved_refund_is_carried_out_and_spoken(calls: dict[str, tuple[int, str, str]]) -> None:
    paid = "Invoice 88 is paid back: 25 euros within three days."
    tool = ['  [tool refund_invoice {"invoice":"88"}]', f"  [tool refund_invoice -> {paid}]", f"Billing: {paid}"]
    assert part(calls["approved"][1], "Hello") == [*THERE, f"{ASKED}y", *tool, *BACK]


def test_a_refused_refund_never_runs_and_is_spoken_about(calls: dict[str, tuple[int, str, str]]) -> None:
    refusal = [f"  [tool refund_invoice -> {REFUSED}]", f"Billing: {REFUSED}"]
    assert part(calls["refused"][1], "Hello") == [*THERE, f"{ASKED}perhaps", f"{ASKED}n", *refusal, *BACK]


def test_where_nobody_answers_nothing_is_paid(calls: dict[str, tuple[int, str, str]]) -> None:
    refusal = [f"  [tool refund_invoice -> {REFUSED}]", f"Billing: {REFUSED}"]
    assert part(calls["unattended"][1], "Hello") == [*THERE, ASKED, *refusal, *BACK]


def test_the_other_specialist_answers_with_a_tool_and_hands_back(calls: dict[str, tuple[int, str, str]]) -> None:
    wrong = "On line 7, the box in your street has no power, and it will be repaired by six this evening."
    assert part(calls["approved"][1], "And my internet") == [
        "Triage: I connect you with our technicians.",
        "  [handoff Triage -> Technical]",
        "Technical: I check that.",
        '  [tool check_line {"line":"7"}]',
        f"  [tool check_line -> {wrong}]",
        f"Technical: {wrong}",
        "  [handoff Technical -> Triage]",
        "Triage: This is triage again. Anything else?",
    ]


@pytest.mark.parametrize("name", ANSWERS)
def test_the_guardrail_stops_the_card_number_and_the_agent_corrects_itself(
    calls: dict[str, tuple[int, str, str]], name: str
) -> None:
    begun, *rest = part(calls[name][1], "Which card")
    assert begun.startswith("Triage: The card is 4000 1234 5678 9010,")
    assert "the latest" not in begun
    assert rest[0] == "  [guardrail no_card_numbers stopped this]"
    assert rest[-1] == "Triage: Sorry, I do not read out card numbers."


def test_without_an_endpoint_it_explains_and_does_nothing() -> None:
    status, output, errors = stranger.run("examples.triage")
    assert (status, output) == (2, "")
    assert "--offline" in errors
    assert "OPENAI_API_KEY" in errors


async def test_only_the_real_api_is_used_without_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_endpoint(argparse.Namespace(offline=False, model="gpt-realtime"), SCENARIO) as config:
        assert config == {"initial_model_settings": {"model_name": "gpt-realtime"}}
    assert "OpenAI Realtime API" in capsys.readouterr().out


async def test_a_real_key_stays_at_home_with_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    async with open_endpoint(argparse.Namespace(offline=True, model=None), SCENARIO) as config:
        assert config["api_key"] == "offline"
        assert config["url"].startswith("ws://127.0.0.1:")


def test_a_spoken_customer_is_heard_to_say_what_the_script_waits_for() -> None:
    turns = [turn for turn in load_scenario(str(SCENARIO)).turns if turn.heard]
    assert len(turns) == 5
    assert all(turn.groups(turn.heard) is not None for turn in turns)
