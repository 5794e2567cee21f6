"""Follows a scenario through one conversation: what was heard, what to answer, what is still owed after a tool call.

Pure. The director is told what happens and is asked for a plan whenever a response starts. A caller who interrupts simply
brings the next turn; what the interrupted turn still had to say is dropped, but a tool call that is out keeps its
continuation until its output was spoken about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.simulator.scenario import Turn, fill, fill_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.simulator.scenario import Scenario, Step

__all__ = ["Call", "Director", "Plan", "Say"]

OPEN_CALLS = 32
"""So many calls without an output are remembered; a client that never answers must not make us grow."""


@dataclass(frozen=True)
class Say:
    """One message of the assistant."""

    text: str


@dataclass(frozen=True)
class Call:
    """One function call. `arguments` is JSON text."""

    name: str
    arguments: str
    follow_up: FollowUp


@dataclass(frozen=True)
class FollowUp:
    """What remains of a turn once its calls are answered. Calls of one response share one."""

    turn: Turn
    position: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What one response consists of. `think` is in seconds; None leaves it to the endpoint."""

    outputs: tuple[Say | Call, ...]
    think: float | None = None


@dataclass
class _OpenCall:
    name: str
    arguments: Any
    follow_up: FollowUp
    output: Any = None
    answered: bool = False


@dataclass
class Director:
    """The state of one conversation. Make one for each model session."""

    scenario: Scenario
    _cursor: int = 0
    _pending: FollowUp | None = None
    _greeted: bool = False
    _calls: dict[str, _OpenCall] = field(default_factory=dict)
    _tool: dict[str, Any] = field(default_factory=dict)
    _tools: dict[str, Any] = field(default_factory=dict)

    def hear_audio(self, seconds: float) -> str:
        """A spoken turn was committed: take the next turn, and return what the caller said."""
        turns = self.scenario.turns
        if self._cursor >= len(turns) and self.scenario.repeat:
            self._cursor = 0
        spoken = self._cursor < len(turns)
        turn = turns[self._cursor] if spoken else self.scenario.default
        self._cursor += spoken
        audio = {"seconds": round(seconds, 1)}
        heard = fill_text(turn.heard, {"audio": audio})
        self._greeted = True
        # The pattern is for typed text; a spoken turn that does not fit it merely has no groups.
        groups = turn.groups(heard) or {}
        self._pending = FollowUp(turn, 0, {"heard": heard, "match": groups, "audio": audio})
        return heard

    def hear_text(self, text: str) -> None:
        """A typed message arrived; it waits until a response is asked for."""
        index, turn, groups = self._find(text)
        if index is not None:
            self._cursor = index + 1
        self._greeted = True
        self._pending = FollowUp(turn, 0, {"heard": text, "match": groups})

    def recall_answer(self) -> None:
        """The client put an answer of the assistant into the conversation: what came before it needs no other one."""
        self._pending = None
        self._calls = {call_id: call for call_id, call in self._calls.items() if not call.answered}

    def recall_call(self, call_id: str, name: str, arguments: str) -> None:
        """The client put a function call into the conversation, as one does who reopens an old conversation."""
        pending = self._pending
        if pending is None:
            return
        steps = pending.turn.do
        for position in range(pending.position, len(steps)):
            if steps[position].call == name:
                self._pending = None
                rest = FollowUp(pending.turn, position + 1, pending.values)
                self._open(call_id, _OpenCall(name, _parsed(arguments), rest))
                return

    def hear_output(self, call_id: str, output: str) -> None:
        """The output of a function call arrived."""
        call = self._calls.get(call_id)
        if call is not None:
            call.output = _parsed(output)
            call.answered = True

    def called(self, call_id: str, call: Call) -> None:
        """A planned call went out under this id."""
        self._open(call_id, _OpenCall(call.name, msgspec.json.decode(call.arguments), call.follow_up))

    def plan(self, offered: Collection[str]) -> Plan:
        """What a response of the conversation consists of; `offered` are the tools that the session has."""
        follow_up = self._next()
        return self._steps(follow_up, offered)

    def plan_aside(self, text: str, offered: Collection[str]) -> Plan:
        """What a response outside the conversation consists of. Leaves no trace here."""
        _, turn, groups = self._find(text)
        return self._steps(FollowUp(turn, 0, {"heard": text, "match": groups}), offered)

    def _open(self, call_id: str, call: _OpenCall) -> None:
        self._calls[call_id] = call
        while len(self._calls) > OPEN_CALLS:
            del self._calls[next(iter(self._calls))]

    def _find(self, text: str) -> tuple[int | None, Turn, dict[str, str]]:
        for index, turn in enumerate(self.scenario.turns):
            groups = turn.groups(text)
            if groups is not None:
                return index, turn, groups
        return None, self.scenario.default, {}

    def _next(self) -> FollowUp:
        """The newest turn of the caller first, then the oldest answered call, then a greeting."""
        pending, self._pending = self._pending, None
        if pending is not None:
            return pending
        answered = next((call for call in self._calls.values() if call.answered), None)
        if answered is not None:
            return self._take(answered.follow_up)
        greeting = None if self._greeted else self.scenario.greeting
        self._greeted = True
        return FollowUp(greeting or self.scenario.default, 0, {})

    def _take(self, follow_up: FollowUp) -> FollowUp:
        """Fill in the outputs of all calls that share this follow-up, and close them."""
        for call_id, call in list(self._calls.items()):
            if call.follow_up is follow_up:
                del self._calls[call_id]
                self._tool = {"name": call.name, "arguments": call.arguments, "output": call.output}
                self._tools[call.name] = self._tool
        return follow_up

    def _steps(self, follow_up: FollowUp, offered: Collection[str]) -> Plan:
        """The steps up to and including the next group of calls."""
        steps, position = follow_up.turn.do, follow_up.position
        values = {**follow_up.values, "tool": self._tool, "tools": self._tools}
        end = position
        while end < len(steps) and steps[end].call is None:
            end += 1
        first_call = end
        while end < len(steps) and steps[end].call is not None:
            end += 1
        calls = steps[first_call:end]
        if any(step.call not in offered for step in calls):
            # A model cannot call what it was not offered.
            apology = FollowUp(self.scenario.default, 0, follow_up.values)
            return self._sayings(apology, values) if follow_up.turn is not self.scenario.default else Plan(())
        rest = FollowUp(follow_up.turn, end, follow_up.values)
        outputs: list[Say | Call] = [*self._said(steps[position:first_call], values)]
        outputs += [self._call(step, values, rest) for step in calls]
        return Plan(tuple(outputs), follow_up.turn.think if position == 0 else None)

    def _sayings(self, follow_up: FollowUp, values: Mapping[str, Any]) -> Plan:
        return Plan(tuple(self._said(follow_up.turn.do, values)), follow_up.turn.think)

    @staticmethod
    def _said(steps: tuple[Step, ...], values: Mapping[str, Any]) -> list[Say]:
        return [Say(fill_text(step.say, values)) for step in steps if step.say is not None]

    @staticmethod
    def _call(step: Step, values: Mapping[str, Any], rest: FollowUp) -> Call:
        if step.call is None:
            raise AssertionError("only a step with a call is called")
        return Call(step.call, msgspec.json.encode(fill(step.arguments, values)).decode(), rest)


def _parsed(output: str) -> Any:
    """Most tools answer with JSON; what is not stays a text."""
    try:
        return msgspec.json.decode(output)
    except msgspec.DecodeError:
        return output
