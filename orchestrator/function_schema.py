"""From a function's signature and docstring to the JSON schema that a model sees, and back to checked arguments.

msgspec does both: the parameters become the fields of a struct, which yields the schema and decodes the arguments that the
model sends. Types that msgspec does not know are refused when the tool is made, not when it is called.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import docstring_parser
import msgspec

from orchestrator.errors import ModelBehaviorError, UserError
from orchestrator.run_context import RunContextWrapper

__all__ = ["DocstringStyle", "FunctionSchema", "function_schema", "schema_of", "strict"]

DocstringStyle: TypeAlias = Literal["google", "numpy", "sphinx"]
_STYLES = {
    None: docstring_parser.DocstringStyle.AUTO,
    "google": docstring_parser.DocstringStyle.GOOGLE,
    "numpy": docstring_parser.DocstringStyle.NUMPYDOC,
    "sphinx": docstring_parser.DocstringStyle.REST,
}


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """How one function is called: its schema for the model and the struct that its arguments decode into."""

    name: str
    description: str
    parameters: dict[str, Any]
    takes_context: bool
    struct: type[msgspec.Struct]
    positional: tuple[str, ...]
    keyword: tuple[str, ...]

    def decode(self, arguments: str) -> tuple[list[Any], dict[str, Any]]:
        """Check the model's JSON text and return positional and keyword arguments.

        Empty text counts as no arguments. Raises ModelBehaviorError when the text is not JSON or does not fit the schema.
        """
        try:
            values = msgspec.json.decode(arguments or "{}", type=self.struct)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise ModelBehaviorError(f"Invalid JSON input for tool {self.name}: {error}") from error
        return [getattr(values, name) for name in self.positional], {name: getattr(values, name) for name in self.keyword}

    def is_plain(self, arguments: Mapping[str, Any]) -> bool:
        """Tell whether the function would get exactly these arguments: no default added, no value put into another form."""
        try:
            return bool(_written_out(msgspec.convert(arguments, self.struct)) == arguments)
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError):
            return False


def _written_out(value: Any) -> Any:
    """Return the JSON form of a value with every field in it.

    msgspec leaves a default of a dataclass in the class, and then out of its own JSON form.
    """
    if isinstance(value, msgspec.Struct):
        fields = {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
        return msgspec.to_builtins(value) | {name: _written_out(part) for name, part in fields.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _written_out(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {msgspec.to_builtins(key, str_keys=True): _written_out(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_written_out(part) for part in value]
    return msgspec.to_builtins(value)


def function_schema(
    func: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    docstring_style: DocstringStyle | None = None,
    use_docstring: bool = True,
    strict_mode: bool = True,
) -> FunctionSchema:
    """Describe a function to a model.

    The first parameter is left out when it is annotated with RunContextWrapper or ToolContext. Raises UserError for
    `*args`, `**kwargs`, a context parameter elsewhere than first, and types that have no JSON schema.
    """
    tool_name = name or func.__name__
    text = (inspect.getdoc(func) or "") if use_docstring else ""
    parsed = docstring_parser.parse(text, style=_STYLES[docstring_style])
    described = {param.arg_name: param.description for param in parsed.params if param.description}
    try:
        hints = typing.get_type_hints(func, include_extras=True)
    except NameError as error:
        raise UserError(f"tool {tool_name}: a type annotation cannot be resolved ({error})") from error
    takes_context, fields, positional, keyword = _fields(func, tool_name, hints, described)
    struct = msgspec.defstruct(f"{tool_name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
    parameters = schema_of(struct, f"tool {tool_name}: ")
    parameters["title"] = f"{tool_name}_args"
    if strict_mode:
        strict(parameters)
    told = description or (parsed.description or "").strip()
    return FunctionSchema(tool_name, told, parameters, takes_context, struct, tuple(positional), tuple(keyword))


def _fields(
    func: Callable[..., Any], tool_name: str, hints: dict[str, Any], described: dict[str, str]
) -> tuple[bool, list[Any], list[str], list[str]]:
    takes_context = False
    fields: list[Any] = []
    positional: list[str] = []
    keyword: list[str] = []
    for index, parameter in enumerate(inspect.signature(func).parameters.values()):
        annotation = hints.get(parameter.name, Any)
        if _is_context(annotation):
            if index:
                raise UserError(f"tool {tool_name}: the context must be the first parameter, not {parameter.name!r}")
            takes_context = True
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UserError(f"tool {tool_name}: {parameter.name!r} has no fixed schema; name each argument")
        if text := described.get(parameter.name):
            annotation = typing.Annotated[annotation, msgspec.Meta(description=text)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, annotation))
        else:
            fields.append((parameter.name, annotation, _default(parameter.default)))
        (keyword if parameter.kind is parameter.KEYWORD_ONLY else positional).append(parameter.name)
    return takes_context, fields, positional, keyword


def _default(value: Any) -> Any:
    """Wrap a mutable default, which a struct refuses to share between calls."""
    if isinstance(value, list | dict | set | bytearray):
        return msgspec.field(default_factory=lambda: copy.copy(value))
    return value


def _is_context(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, RunContextWrapper)


def schema_of(kind: Any, whose: str = "") -> dict[str, Any]:
    """Return the JSON schema of a type. Raises UserError, beginning with `whose`, for one that has no JSON form."""
    try:
        return _inline(msgspec.json.schema(kind))
    except TypeError as error:
        raise UserError(f"{whose}{error}; use types that have a JSON form") from error


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the top-level struct in place of the reference to it; nested definitions stay in $defs."""
    reference = schema.pop("$ref", None)
    if reference is None:
        return schema
    definitions: dict[str, Any] = schema.get("$defs", {})
    name = reference.rsplit("/", 1)[-1]
    top: dict[str, Any] = definitions.pop(name)
    if reference.encode() + b'"' in msgspec.json.encode([top, definitions]):
        definitions[name] = copy.deepcopy(top)  # A type that refers to itself is needed under its name too.
    if definitions:
        top["$defs"] = definitions
    return top


def strict(schema: Any) -> None:
    """Make every object in a schema closed and all its properties required, as strict function calling demands.

    Works in place and keeps defaults as hints to the model. A mapping, whose keys are not known, stays open: closed it could
    only ever be empty.
    """
    if isinstance(schema, list):
        for part in schema:
            strict(part)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False
        schema["required"] = list(schema["properties"])
    for key, part in schema.items():
        if key in ("properties", "$defs"):
            strict(list(part.values()))  # Their keys are names, which may be any word.
        elif key not in ("default", "enum", "const", "examples"):
            strict(part)
