"""The tool calls of a conversation: each runs once and is answered exactly once.

Calls that one response made together are a group: their outputs go to the model as they come, and the next response is asked
for when the last of the group is answered, so that the model never speaks while it lacks half of what it asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from orchestrator.core.states import TOOL_CALL, Machine, ToolCallSignal, ToolCallState
from orchestrator.errors import ModelBehaviorError

__all__ = ["Answer", "ToolCall", "ToolCalls"]

MAX_REMEMBERED = 1024
_CLOSED = (ToolCallState.ANSWERED, ToolCallState.DROPPED)


@dataclass(slots=True)
class ToolCall:
    """One call: what the model asked for and where it stands."""

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str | None
    machine: Machine[ToolCallState, ToolCallSignal] = field(
        default_factory=lambda: Machine(ToolCallState.REQUESTED, TOOL_CALL), repr=False
    )

    @property
    def state(self) -> ToolCallState:
        """Where the call stands."""
        return self.machine.state


@dataclass(frozen=True, slots=True)
class Answer:
    """Give the model this output; with `start_response` also ask for the next response."""

    call: ToolCall
    output: str
    start_response: bool


class ToolCalls:
    """All calls of a session. Answered ones are remembered (the latest thousand), so that a repeat is known as one."""

    __slots__ = ("_calls", "_handoff")

    def __init__(self) -> None:
        self._calls: OrderedDict[str, ToolCall] = OrderedDict()
        # The latest call that was let through as a handoff.
        self._handoff: ToolCall | None = None

    @property
    def open(self) -> list[ToolCall]:
        """The calls that are not answered yet."""
        return [call for call in self._calls.values() if call.state not in _CLOSED]

    def get(self, call_id: str) -> ToolCall | None:
        """Return a call that is known, or None."""
        return self._calls.get(call_id)

    def requested(self, call_id: str, item_id: str, name: str, arguments: str, response_id: str | None) -> ToolCall | None:
        """Take in a call of the model; None when it repeats one that is known.

        Raises ModelBehaviorError for a call without an id, and for one that reuses an id for something else.
        """
        if not call_id:
            raise ModelBehaviorError(f"The model called {name} without a call id")
        known = self._calls.get(call_id)
        if known is not None:
            if (known.name, known.arguments) == (name, arguments):
                return None
            raise ModelBehaviorError(f"The model reused the tool call id {call_id} for another call; it needs a unique call ID")
        call = ToolCall(call_id, item_id, name, arguments, response_id)
        self._calls[call_id] = call
        self._trim()
        return call

    def may_hand_off(self, call: ToolCall) -> bool:
        """Tell whether this call may hand the conversation over.

        Only the first handoff of a response may, and none while another is under way: two of them would leave the
        conversation with whichever happens to end last.
        """
        other = self._handoff
        if other is not None and other is not call:
            together = call.response_id is not None and call.response_id == other.response_id
            if together or other.state not in _CLOSED:
                return False
        self._handoff = call
        return True

    def ask(self, call: ToolCall) -> None:
        """A person must approve the call before it runs."""
        call.machine.signal(ToolCallSignal.ASK)

    def started(self, call: ToolCall) -> None:
        """The call was handed to a tool."""
        call.machine.signal(ToolCallSignal.START)

    def answered(self, call_id: str, output: str) -> Answer | None:
        """Take in a tool's output; None when the call is not open any more (dropped, or answered before)."""
        call = self._calls.get(call_id)
        if call is None or not call.machine.allows(ToolCallSignal.ANSWER):
            return None
        call.machine.signal(ToolCallSignal.ANSWER)
        return Answer(call, output, start_response=not self.waits_for_others(call))

    def waits_for_others(self, call: ToolCall) -> bool:
        """Tell whether calls that were made together with this one are not answered yet."""
        return any(other.response_id == call.response_id for other in self.open)

    def drop_all(self) -> list[ToolCall]:
        """The session ends: drop the open calls and return them."""
        dropped = self.open
        for call in dropped:
            call.machine.signal(ToolCallSignal.DROP)
        return dropped

    def _trim(self) -> None:
        for call_id, call in list(self._calls.items()):
            if len(self._calls) <= MAX_REMEMBERED:
                return
            if call.state in _CLOSED:
                del self._calls[call_id]
