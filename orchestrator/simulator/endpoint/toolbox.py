"""What the model may call in one response, and arguments for a call that no scenario has written down.

Pure. A scripted model cannot choose, so `tool_choice` is honoured like this: under "none" nothing is called; where a call is
required, one that the scenario has for this turn is preferred, and else the first tool that is allowed is called with the
least arguments that its schema takes. A choice of a tool that does not exist demands nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import UnsetType

from orchestrator.wire.realtime_types import FunctionTool, FunctionToolChoice, McpToolChoice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.wire.realtime_types import McpListedTool, Tool, ToolChoice

__all__ = ["ToolKey", "Toolbox", "least_arguments", "toolbox"]

ToolKey: TypeAlias = tuple[str, str]
"""The label of the MCP server ("" for a function of the client) and the name of the tool."""

DEEPEST = 16
_PLAIN: Mapping[str, Any] = {"object": {}, "array": [], "string": "", "integer": 0, "number": 0, "boolean": False, "null": None}


@dataclass(frozen=True)
class Toolbox:
    """The tools of one response with their JSON schemas. `must`: one of them is to be called. Else as many as there are."""

    schemas: Mapping[ToolKey, Any] = field(default_factory=dict)
    must: bool = False
    parallel: bool = True

    def __contains__(self, key: object) -> bool:
        return key in self.schemas


def toolbox(
    tools: Sequence[Tool],
    remote: Mapping[str, Sequence[McpListedTool]],
    choice: ToolChoice | UnsetType | None,
    *,
    parallel: bool,
) -> Toolbox:
    """What a response has. `remote` are the tools of the MCP servers whose listing is complete, by label."""
    if choice == "none":
        return Toolbox()
    schemas: dict[ToolKey, Any] = {("", tool.name): tool.parameters for tool in tools if isinstance(tool, FunctionTool)}
    schemas |= {(label, tool.name): tool.input_schema for label, listed in remote.items() for tool in listed}
    if isinstance(choice, FunctionToolChoice):
        chosen = {key: schema for key, schema in schemas.items() if key == ("", choice.name)}
    elif isinstance(choice, McpToolChoice):
        name = choice.name if isinstance(choice.name, str) else None
        chosen = {key: schema for key, schema in schemas.items() if key[0] == choice.server_label and name in (None, key[1])}
    else:
        return Toolbox(schemas, must=choice == "required" and bool(schemas), parallel=parallel)
    return Toolbox(chosen or schemas, must=bool(chosen), parallel=parallel)


def least_arguments(schema: Any) -> dict[str, Any]:
    """The smallest object that fits a tool's schema, as far as the usual keywords go: required members only."""
    found = _least(schema, schema, 0)
    return found if isinstance(found, dict) else {}


def _least(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return {} if depth == 0 else None
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("enum", "examples"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    if isinstance(reference := schema.get("$ref"), str):
        return _least(_resolve(reference, root), root, depth + 1)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return _least(schema[name][0], root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        schema = _merged(schema, [_target(part, root) for part in schema["allOf"]])
    return _of_type(schema, root, depth)


def _of_type(schema: dict[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema or depth == 0 else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "null"
    if kind == "object":
        members, needed = schema.get("properties"), schema.get("required")
        if not isinstance(members, dict) or not isinstance(needed, list):
            return {}
        return {name: _least(members.get(name), root, depth + 1) for name in needed if isinstance(name, str)}
    if kind == "array":
        return [_least(schema.get("items", {}), root, depth + 1)] * min(_whole(schema.get("minItems")), DEEPEST)
    if kind == "string":
        return "x" * min(_whole(schema.get("minLength")), 1024)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return _PLAIN.get(kind) if isinstance(kind, str) else None


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    """The number nearest to zero that the bounds leave."""
    step = schema.get("multipleOf")
    step = step if isinstance(step, int | float) and step > 0 else 1
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    number: float = 0
    if isinstance(low, int | float) and low > number:
        number = -(-low // step) * step
    if isinstance(above, int | float) and above >= number:
        number = (above // step + 1) * step
    if isinstance(high, int | float) and high < number:
        number = high // step * step
    if isinstance(below, int | float) and below <= number:
        number = (-(-below // step) - 1) * step
    return int(number) if whole else number


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _target(schema: Any, root: Any) -> Any:
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    return _resolve(reference, root) if isinstance(reference, str) else schema


def _merged(schema: dict[str, Any], parts: Sequence[Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    members: dict[str, Any] = {}
    needed: list[Any] = []
    for part in (*parts, schema):
        if isinstance(part, dict):
            merged |= part
            members |= part["properties"] if isinstance(part.get("properties"), dict) else {}
            needed += part["required"] if isinstance(part.get("required"), list) else []
    return {**merged, "properties": members, "required": needed} if members else merged


def _resolve(reference: str, root: Any) -> Any:
    """Follow a reference into the schema itself, "#/$defs/name"; any other stands for nothing."""
    found = root
    for name in reference.removeprefix("#/").split("/") if reference.startswith("#/") else ("",):
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
