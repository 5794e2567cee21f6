"""Follows a scenario through one conversation: what was heard, what to answer, what is still owed after a tool call.

Pure. The director is told what happens and is asked for a plan whenever a response starts. A caller who interrupts simply
brings the next turn; what the interrupted turn still had to say is dropped, but a tool call that is out keeps its
continuation until its output was spoken about. So does one that waits for an approval.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.simulator.endpoint.toolbox import least_arguments
from orchestrator.simulator.json_text import json_text, value_of
from orchestrator.simulator.scenario import Turn, fill, fill_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.simulator.endpoint.toolbox import Toolbox, ToolKey
    from orchestrator.simulator.scenario import Ending, Scenario, Step, TranscriptError

__all__ = ["Call", "Director", "Heard", "Plan", "Say"]

OPEN_CALLS = 32
"""So many calls without an output are remembered; a client that never answers must not make us grow."""


@dataclass(frozen=True)
class Say:
    """One message of the assistant."""

    text: str


@dataclass(frozen=True)
class Call:
    """One call of a tool. `arguments` is JSON text.

    `server` is the label of the MCP server that has the tool, "" for a function of the client; `approved` the id of the
    request by which the client has allowed this call.
    """

    name: str
    arguments: str
    follow_up: FollowUp
    server: str = ""
    approved: str = ""


@dataclass(frozen=True)
class Heard:
    """What the caller said, and why that cannot be written down, if it cannot."""

    text: str
    fault: TranscriptError | None = None


@dataclass(frozen=True)
class FollowUp:
    """What remains of a turn once its calls are answered. Calls of one response share one."""

    turn: Turn
    position: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What one response consists of, and how it ends if not well. `think` is in seconds; None leaves it to the endpoint."""

    outputs: tuple[Say | Call, ...] = ()
    think: float | None = None
    end: Ending | None = None


@dataclass
class _OpenCall:
    name: str
    arguments: Any
    follow_up: FollowUp
    output: Any = None
    answered: bool = False


@dataclass
class _Asked:
    """A call that needs the client's approval. `approve` is None until the client has decided."""

    call: Call
    approve: bool | None = None


@dataclass
class Director:
    """The state of one conversation. Make one for each model session."""

    scenario: Scenario
    _cursor: int = 0
    _pending: FollowUp | None = None
    _greeted: bool = False
    _calls: dict[str, _OpenCall] = field(default_factory=dict)
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _tool: dict[str, Any] = field(default_factory=dict)
    _tools: dict[str, Any] = field(default_factory=dict)

    def hear_audio(self, seconds: float) -> Heard:
        """A spoken turn was committed: take the next turn, and return what the caller said."""
        turns = self.scenario.turns
        if self._cursor >= len(turns) and self.scenario.repeat:
            self._cursor = 0
        turn = self._next_spoken()
        self._cursor += self._cursor < len(turns)
        audio = {"seconds": round(seconds, 1)}
        heard = fill_text(turn.heard, {"audio": audio})
        self._greeted = True
        # The pattern is for typed text; a spoken turn that does not fit it merely has no groups.
        groups = turn.groups(heard) or {}
        self._pending = FollowUp(turn, 0, {"heard": heard, "match": groups, "audio": audio})
        return Heard(heard, turn.transcription)

    def hear_recognized(self, text: str, seconds: float) -> Heard:
        """A spoken turn was committed, and somebody found out what was said: take the turn that fits."""
        turn = self._hear(text, {"audio": {"seconds": round(seconds, 1)}})
        return Heard(text, turn.transcription)

    def foresee_audio(self) -> str | None:
        """What the caller is about to say aloud, or None where that depends on how long it takes."""
        heard = self._next_spoken().heard
        return None if "{audio" in heard else fill_text(heard, {})

    def hear_silence(self) -> None:
        """Nobody has spoken for long: the model is to say something."""
        self._greeted = True
        self._pending = FollowUp(self.scenario.idle or self.scenario.default, 0, {})

    def hear_text(self, text: str) -> None:
        """A typed message arrived; it waits until a response is asked for."""
        self._hear(text, {})

    def hear_approval(self, request_id: str, *, approve: bool) -> None:
        """The client has decided about a call that it was asked about."""
        asked = self._asked.get(request_id)
        if asked is not None:
            asked.approve = approve

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
                self._open(call_id, _OpenCall(name, value_of(arguments), rest))
                return

    def hear_output(self, call_id: str, output: str) -> None:
        """The output of a function call arrived."""
        call = self._calls.get(call_id)
        if call is not None:
            call.output = value_of(output)
            call.answered = True

    def called(self, call_id: str, call: Call) -> None:
        """A planned call went out under this id."""
        self._open(call_id, _OpenCall(call.name, value_of(call.arguments), call.follow_up))

    def asked(self, request_id: str, call: Call) -> None:
        """The client was asked under this id whether a planned call may go out."""
        self._asked[request_id] = _Asked(call)
        while len(self._asked) > OPEN_CALLS:
            del self._asked[next(iter(self._asked))]

    def plan(self, tools: Toolbox) -> Plan:
        """What a response of the conversation consists of."""
        if self._pending is None:
            for request_id, asked in list(self._asked.items()):
                if asked.approve is not None:
                    del self._asked[request_id]
                    return self._decided(request_id, asked, tools)
        return self._steps(self._next(), tools)

    def plan_aside(self, text: str, tools: Toolbox) -> Plan:
        """What a response outside the conversation consists of. Leaves no trace here."""
        _, turn, groups = self._find(text)
        return self._steps(FollowUp(turn, 0, {"heard": text, "match": groups}), tools)

    def _next_spoken(self) -> Turn:
        turns = self.scenario.turns
        if self._cursor < len(turns):
            return turns[self._cursor]
        return turns[0] if turns and self.scenario.repeat else self.scenario.default

    def _hear(self, text: str, values: Mapping[str, Any]) -> Turn:
        index, turn, groups = self._find(text)
        if index is not None:
            self._cursor = index + 1
        self._greeted = True
        self._pending = FollowUp(turn, 0, {"heard": text, "match": groups, **values})
        return turn

    def _decided(self, request_id: str, asked: _Asked, tools: Toolbox) -> Plan:
        call = asked.call
        if asked.approve:
            return Plan((replace(call, approved=request_id),))
        # The model sees that there will be no output, and says what it says without one.
        self._tool = {"name": call.name, "arguments": value_of(call.arguments), "output": None}
        self._tools[call.name] = self._tool
        return self._steps(call.follow_up, tools)

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

    def _steps(self, follow_up: FollowUp, tools: Toolbox) -> Plan:
        """The steps up to and including the next group of calls."""
        steps, position, turn = follow_up.turn.do, follow_up.position, follow_up.turn
        values = {**follow_up.values, "tool": self._tool, "tools": self._tools}
        first_call = position
        while first_call < len(steps) and steps[first_call].call is None:
            first_call += 1
        end = first_call
        while end < len(steps) and steps[end].call is not None and (tools.parallel or end == first_call):
            end += 1
        calls = steps[first_call:end]
        unknown = any(_key(step) not in tools for step in calls)
        if tools.must and (unknown or not calls):
            return self._forced(follow_up, tools, values)
        if unknown:
            # A model cannot call what it was not offered.
            apology = FollowUp(self.scenario.default, 0, follow_up.values)
            return self._sayings(apology, values) if turn is not self.scenario.default else Plan()
        rest = FollowUp(turn, end, follow_up.values)
        outputs: list[Say | Call] = [*self._said(steps[position:first_call], values)]
        outputs += [self._call(step, values, rest) for step in calls]
        return Plan(tuple(outputs), turn.think if position == 0 else None, turn.end if end == len(steps) else None)

    def _forced(self, follow_up: FollowUp, tools: Toolbox, values: Mapping[str, Any]) -> Plan:
        """A call is required, and the next steps have none that is allowed: a later one of the turn, or one made up."""
        turn, position = follow_up.turn, follow_up.position
        think = turn.think if position == 0 else None
        for index in range(position, len(turn.do)):
            if _key(turn.do[index]) in tools:
                rest = FollowUp(turn, index + 1, follow_up.values)
                return Plan((self._call(turn.do[index], values, rest),), think)
        (server, name), schema = next(iter(tools.schemas.items()))
        arguments = json_text(least_arguments(schema))
        return Plan((Call(name, arguments, FollowUp(turn, position, follow_up.values), server),), think)

    def _sayings(self, follow_up: FollowUp, values: Mapping[str, Any]) -> Plan:
        return Plan(tuple(self._said(follow_up.turn.do, values)), follow_up.turn.think)

    @staticmethod
    def _said(steps: tuple[Step, ...], values: Mapping[str, Any]) -> list[Say]:
        return [Say(fill_text(step.say, values)) for step in steps if step.say is not None]

    @staticmethod
    def _call(step: Step, values: Mapping[str, Any], rest: FollowUp) -> Call:
        if step.call is None:
            raise AssertionError("only a step with a call is called")
        return Call(step.call, json_text(fill(step.arguments, values)), rest, step.server)


def _key(step: Step) -> ToolKey:
    return step.server, step.call or ""
