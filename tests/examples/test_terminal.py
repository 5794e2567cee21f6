"""The terminal example: a conversation from a pipe, and one typed at a terminal."""

from __future__ import annotations

import pytest

from tests.examples import stranger
from tests.examples.stranger import END_OF_INPUT, AtTerminal

TYPED = """\
Please refund invoice 91.
n
Please refund invoice 91.
y
/history
/quit
never read
"""
REFUSED = "A colleague has looked at this and refused it."
PAID = "Invoice 91 is paid back: 40 euros within three days."


def in_order(output: str, *texts: str) -> bool:
    """Tell whether the texts come one after the other."""
    for text in texts:
        before, found, output = output.partition(text)
        if not found:
            raise AssertionError(f"{text!r} is not where it should be, in:\n{before}")
    return True


def test_a_conversation_from_a_pipe() -> None:
    status, output, errors = stranger.run("examples.terminal", "--offline", typed=TYPED)
    assert (status, errors) == (0, "")
    assert output.startswith("Talking to the offline endpoint at ws://127.0.0.1:")
    asked = '  [Billing wants to run refund_invoice {"invoice":"91"}] approve? [y/n] '
    round_trip = ("  [handoff Triage -> Billing]\n", asked, "Billing: {}\n", "  [handoff Billing -> Triage]\n", "Triage: This")
    for answer, said in (("n", REFUSED), ("y", PAID)):
        assert in_order(output, *(text.format(said) if "{}" in text else text for text in round_trip))
        assert f"{asked}{answer}\n" in output
    history = output.partition("you: /history\n")[2]
    assert in_order(
        history,
        "  user  Please refund invoice 91.\n",
        '  tool  transfer_to_billing {} -> {"assistant":"Billing"}\n',
        f'  tool  refund_invoice {{"invoice":"91"}} -> {REFUSED}\n',
        f"  agent {REFUSED}\n",
        '  tool  transfer_to_triage {} -> {"assistant":"Triage"}\n',
        f'  tool  refund_invoice {{"invoice":"91"}} -> {PAID}\n',
        f"  agent {PAID}\n",
        "you: /quit\n",
    )
    assert "never read" not in output


def test_an_answer_is_interrupted_while_it_comes() -> None:
    with AtTerminal("examples.terminal", "--offline") as terminal:
        terminal.expect("you: ")
        terminal.type("Hello there.\n")
        terminal.expect("Triage: I can only")
        terminal.type("/interrupt\n")
        terminal.expect("[stopped]")
        terminal.expect("you: ")
        terminal.type("/history\n")
        history = terminal.expect("you: ")
        assert "agent I can only" in history
        assert "which card we have" not in history
        terminal.type("Thank you.\n")
        terminal.expect("Triage: Goodbye!")
        terminal.expect("you: ")
        terminal.type(END_OF_INPUT)
        assert terminal.wait() == 0
        assert "rror" not in terminal.seen


@pytest.mark.parametrize("moment", ["you: ", "Triage: I can only", "[y/n] "])
def test_ctrl_c_ends_it_at_any_time(moment: str) -> None:
    with AtTerminal("examples.terminal", "--offline") as terminal:
        terminal.expect("you: ")
        if moment != "you: ":
            terminal.type("A refund, please.\n" if "y/n" in moment else "Hello there.\n")
            terminal.expect(moment)
        terminal.press_ctrl_c()
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen


def test_another_agent_that_writes() -> None:
    words = ("--agent", "orchestrator.demo.agent:agent", "--scenario", "order_desk", "--text")
    status, output, errors = stranger.run("examples.terminal", "--offline", *words, typed="Where is order 4712?\n")
    assert (status, errors) == (0, "")
    assert in_order(output, "You talk with Order desk.", "[tool lookup_order", "Order desk: Thank you", "It is being packed.")


@pytest.mark.parametrize(
    ("words", "explanation"),
    [
        ((), "--offline"),
        (("--offline", "--agent", "examples.triage.agents:nobody"), "nobody"),
        (("--offline", "--scenario", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_it_cannot_do_it_explains(words: tuple[str, ...], explanation: str) -> None:
    status, _, errors = stranger.run("examples.terminal", *words)
    assert status == 2
    assert explanation in errors
    assert "Traceback" not in errors
