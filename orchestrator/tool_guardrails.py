"""Checks around a tool call: on its arguments before it runs, on its output before the model sees it. The guide's names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, overload

from orchestrator.callables import call_user_function
from orchestrator.errors import UserError
from orchestrator.tool_context import ToolContext

__all__ = [
    "ToolGuardrailFunctionOutput",
    "ToolInputGuardrail",
    "ToolInputGuardrailData",
    "ToolOutputGuardrail",
    "ToolOutputGuardrailData",
    "tool_input_guardrail",
    "tool_output_guardrail",
]


class _Behavior(TypedDict):
    type: Literal["allow", "reject_content", "raise_exception"]
    message: str


@dataclass(slots=True)
class ToolGuardrailFunctionOutput:
    """The verdict on a tool call. Make it with `allow`, `reject_content` or `raise_exception`."""

    output_info: Any = None
    behavior: _Behavior | None = None

    @classmethod
    def allow(cls, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """Let the call go on."""
        return cls(output_info, {"type": "allow", "message": ""})

    @classmethod
    def reject_content(cls, message: str, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """Give the model this message in place of the tool's output."""
        return cls(output_info, {"type": "reject_content", "message": message})

    @classmethod
    def raise_exception(cls, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """End the call as an error of the program's own making."""
        return cls(output_info, {"type": "raise_exception", "message": ""})


@dataclass(slots=True)
class ToolInputGuardrailData:
    """What an input guardrail sees: the call's context, with its arguments, and the agent."""

    context: ToolContext[Any]
    agent: Any


@dataclass(slots=True)
class ToolOutputGuardrailData(ToolInputGuardrailData):
    """What an output guardrail sees in addition: what the tool returned."""

    output: Any


Verdict: TypeAlias = ToolGuardrailFunctionOutput | Awaitable[ToolGuardrailFunctionOutput]
InputFunction: TypeAlias = Callable[[ToolInputGuardrailData], Verdict]
OutputFunction: TypeAlias = Callable[[ToolOutputGuardrailData], Verdict]


@dataclass
class _ToolGuardrail:
    guardrail_function: Callable[[Any], Verdict]
    name: str | None = None

    def get_name(self) -> str:
        """Return the name, or the function's."""
        return self.name or str(getattr(self.guardrail_function, "__name__", type(self.guardrail_function).__name__))

    async def run(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Ask the function. Raises what it raises, and UserError when it returns no verdict."""
        verdict = await call_user_function(self.guardrail_function, data)
        if not isinstance(verdict, ToolGuardrailFunctionOutput):
            raise UserError(f"guardrail {self.get_name()} must return a ToolGuardrailFunctionOutput")
        return verdict


@dataclass
class ToolInputGuardrail(_ToolGuardrail):
    """A check on the arguments of a tool."""


@dataclass
class ToolOutputGuardrail(_ToolGuardrail):
    """A check on the output of a tool."""


@overload
def tool_input_guardrail(func: InputFunction, /) -> ToolInputGuardrail: ...


@overload
def tool_input_guardrail(*, name: str | None = None) -> Callable[[InputFunction], ToolInputGuardrail]: ...


def tool_input_guardrail(
    func: InputFunction | None = None, /, *, name: str | None = None
) -> ToolInputGuardrail | Callable[[InputFunction], ToolInputGuardrail]:
    """Make a function a guardrail on tool arguments."""
    if func is not None:
        return ToolInputGuardrail(func)
    return lambda target: ToolInputGuardrail(target, name)


@overload
def tool_output_guardrail(func: OutputFunction, /) -> ToolOutputGuardrail: ...


@overload
def tool_output_guardrail(*, name: str | None = None) -> Callable[[OutputFunction], ToolOutputGuardrail]: ...


def tool_output_guardrail(
    func: OutputFunction | None = None, /, *, name: str | None = None
) -> ToolOutputGuardrail | Callable[[OutputFunction], ToolOutputGuardrail]:
    """Make a function a guardrail on tool output."""
    if func is not None:
        return ToolOutputGuardrail(func)
    return lambda target: ToolOutputGuardrail(target, name)
