"""Checks on what the agent says and on what the user said. The names are the guide's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from orchestrator.callables import call_user_function
from orchestrator.errors import UserError
from orchestrator.run_context import RunContextWrapper

__all__ = [
    "GuardrailFunctionOutput",
    "InputGuardrail",
    "InputGuardrailResult",
    "OutputGuardrail",
    "OutputGuardrailResult",
    "input_guardrail",
    "output_guardrail",
]


@dataclass(slots=True)
class GuardrailFunctionOutput:
    """The verdict: `tripwire_triggered` stops, `output_info` says why, for whoever reads the event."""

    output_info: Any
    tripwire_triggered: bool


Verdict: TypeAlias = GuardrailFunctionOutput | Awaitable[GuardrailFunctionOutput]
GuardrailFunction: TypeAlias = Callable[[RunContextWrapper[Any], Any, Any], Verdict]


@dataclass(slots=True)
class OutputGuardrailResult:
    """What a guardrail said about what an agent says."""

    guardrail: OutputGuardrail
    agent_output: str
    agent: Any
    output: GuardrailFunctionOutput


@dataclass(slots=True)
class InputGuardrailResult:
    """What a guardrail said about what the user said."""

    guardrail: InputGuardrail
    output: GuardrailFunctionOutput


@dataclass
class _Guardrail:
    """A function `(context, agent, text) -> GuardrailFunctionOutput`, plain or async, and a name for it."""

    guardrail_function: GuardrailFunction
    name: str | None = None

    def get_name(self) -> str:
        """Return the name, or the function's."""
        return self.name or str(getattr(self.guardrail_function, "__name__", type(self.guardrail_function).__name__))

    async def check(self, context: RunContextWrapper[Any], agent: Any, text: str) -> GuardrailFunctionOutput:
        """Ask the function. Raises what it raises, and UserError when it returns no verdict."""
        verdict = await call_user_function(self.guardrail_function, context, agent, text)
        if not isinstance(verdict, GuardrailFunctionOutput):
            raise UserError(f"guardrail {self.get_name()} must return a GuardrailFunctionOutput, not {type(verdict).__name__}")
        return verdict


@dataclass
class OutputGuardrail(_Guardrail):
    """A check on what an agent says."""

    async def run(self, context: RunContextWrapper[Any], agent: Any, agent_output: str) -> OutputGuardrailResult:
        """Check a text of the agent; see `_Guardrail.check`."""
        return OutputGuardrailResult(self, agent_output, agent, await self.check(context, agent, agent_output))


@dataclass
class InputGuardrail(_Guardrail):
    """A check on what the user said, by its transcript or text."""

    async def run(self, context: RunContextWrapper[Any], agent: Any, input: str) -> InputGuardrailResult:  # noqa: A002
        """Check what the user said; see `_Guardrail.check`."""
        return InputGuardrailResult(self, await self.check(context, agent, input))


@overload
def output_guardrail(func: GuardrailFunction, /) -> OutputGuardrail: ...


@overload
def output_guardrail(*, name: str | None = None) -> Callable[[GuardrailFunction], OutputGuardrail]: ...


def output_guardrail(
    func: GuardrailFunction | None = None, /, *, name: str | None = None
) -> OutputGuardrail | Callable[[GuardrailFunction], OutputGuardrail]:
    """Make a function an output guardrail."""
    if func is not None:
        return OutputGuardrail(func)
    return lambda target: OutputGuardrail(target, name)


@overload
def input_guardrail(func: GuardrailFunction, /) -> InputGuardrail: ...


@overload
def input_guardrail(*, name: str | None = None) -> Callable[[GuardrailFunction], InputGuardrail]: ...


def input_guardrail(
    func: GuardrailFunction | None = None, /, *, name: str | None = None
) -> InputGuardrail | Callable[[GuardrailFunction], InputGuardrail]:
    """Make a function an input guardrail."""
    if func is not None:
        return InputGuardrail(func)
    return lambda target: InputGuardrail(target, name)
