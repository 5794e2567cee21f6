"""Three agents of a telephone company: one finds out what is wanted, two know their subject and hand back."""

from __future__ import annotations

import re
from typing import Any

from orchestrator import RunContextWrapper, function_tool
from orchestrator.guardrail import GuardrailFunctionOutput, output_guardrail
from orchestrator.realtime import RealtimeAgent, RealtimeRunConfig, realtime_handoff

__all__ = ["billing", "run_config", "technical", "triage"]

# Systems of your own would be asked here.
CUSTOMERS = {"Ada": {"line": "7", "invoice": "88"}, "Max": {"line": "12", "invoice": "91"}}
INVOICES = {"88": 25, "91": 40}
LINES = {"7": "the box in your street has no power, and it will be repaired by six this evening"}


@function_tool
def find_customer(name: str) -> dict[str, str]:
    """Find the line and the latest invoice of a customer.

    Args:
        name: First name of the customer.
    """
    return CUSTOMERS.get(name.strip().title(), {"line": "not found", "invoice": "not found"})


# The call waits until a person approves it: money leaves the house.
@function_tool(needs_approval=True)
def refund_invoice(invoice: str) -> str:
    """Pay an invoice back to the customer.

    Args:
        invoice: Number of the invoice, digits only.
    """
    amount = INVOICES.get(invoice)
    if amount is None:
        return f"There is no invoice {invoice}."
    return f"Invoice {invoice} is paid back: {amount} euros within three days."


@function_tool
def check_line(line: str) -> str:
    """Say what is wrong with a line.

    Args:
        line: Number of the line, digits only.
    """
    return f"On line {line}, {LINES.get(line, 'nothing is wrong that we can see')}."


# Async, so that it is called in the event loop: a plain function would be given a thread for each check.
@output_guardrail
async def no_card_numbers(context: RunContextWrapper[Any], agent: RealtimeAgent[Any], output: str) -> GuardrailFunctionOutput:
    """Stop an answer that reads out a card number."""
    found = re.search(r"(?:\d[ -]?){12,19}", output)
    return GuardrailFunctionOutput(output_info={"agent": agent.name}, tripwire_triggered=found is not None)


technical: RealtimeAgent[None] = RealtimeAgent(
    name="Technical",
    handoff_description="Knows about lines that do not work.",
    instructions="You help with lines that do not work. Call check_line, say what it found, then transfer back to triage.",
    tools=[check_line],
)
billing: RealtimeAgent[None] = RealtimeAgent(
    name="Billing",
    instructions=(
        "You help with invoices. Call refund_invoice when the customer wants money back; a colleague approves or refuses it. "
        "Say what came of it, then transfer back to triage."
    ),
    tools=[refund_invoice],
)
triage: RealtimeAgent[None] = RealtimeAgent(
    name="Triage",
    instructions=(
        "You answer the telephone of a telephone company. Be brief; you are heard, not read. Find out what the customer wants "
        "and transfer to billing or technical; do not try to solve it yourself. Use find_customer for what you need to know."
    ),
    tools=[find_customer],
    # An agent stands for a handoff with a name and description made from its own; `realtime_handoff` says it in other words.
    handoffs=[realtime_handoff(billing, tool_description="Transfer to billing: invoices and refunds."), technical],
)
# Set afterwards, since the agents refer to each other.
billing.handoffs = [triage]
technical.handoffs = [triage]

# The guardrail holds whoever speaks, so it belongs to the run. It looks every 20 letters: a number is stopped while it is read.
run_config: RealtimeRunConfig = {
    "output_guardrails": [no_card_numbers],
    "guardrails_settings": {"debounce_text_length": 20},
}
