"""From a decoder's complaint to the error object of the Realtime API: code, message and the path of the member at fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.errors import WireError

__all__ = [
    "FREE_FORM_DEPTH",
    "invalid_json",
    "listed",
    "missing_parameter",
    "param_of",
    "quoted",
    "read_tag",
    "split_path",
    "too_deep",
    "unsupported_value",
    "wire_error",
]

# No schema of a tool nests this deep. Without a limit, an object as deep as the decoder allows (about the interpreter's
# recursion limit) could fail to encode later, where nobody expects it.
FREE_FORM_DEPTH = 100

_AT = re.compile(r" - at `(?P<path>\$[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_EXPECTED = re.compile(r"Expected `(?P<expected>[^`]*)`(?:, got `(?P<got>[^`]*)`)?")
_TOO_LONG = re.compile(r"Expected `str` of length <= (?P<limit>\d+)")
_INVALID = re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL)
# A value goes back to the one who sent it, but a megabyte of it helps nobody.
_SHOWN = 64
_WORDS = {
    "array": "an array",
    "bool": "a boolean",
    "dict": "an object",
    "float": "a decimal",
    "int": "an integer",
    "list": "an array",
    "null": "null",
    "object": "an object",
    "str": "a string",
}


def too_deep(value: Any) -> bool:
    """Tell whether a document nests deeper than `FREE_FORM_DEPTH`."""
    # Own stack: the point is not to depend on the interpreter's.
    waiting = [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > FREE_FORM_DEPTH:
            return True
        if isinstance(node, dict):
            waiting.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, list):
            waiting.extend((child, depth + 1) for child in node)
    return False


def listed(values: tuple[str, ...]) -> str:
    """Write supported values as the API does: 'a', 'b', and 'c'."""
    texts = [f"'{value}'" for value in values]
    if len(texts) < 3:
        return " and ".join(texts)
    return f"{', '.join(texts[:-1])}, and {texts[-1]}"


def quoted(value: object) -> str:
    """Write a value for a message: in single quotes, cut where it is long."""
    text = str(value)
    return f"'{text[:_SHOWN]}…'" if len(text) > _SHOWN else f"'{text}'"


def missing_parameter(param: str) -> WireError:
    """Make the error for a required member that is absent."""
    return WireError("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def unsupported_value(value: object, supported: tuple[str, ...], param: str | None) -> WireError:
    """Make the error for a value that is not one of those supported; without a list when that is empty."""
    values = f" Supported values are: {listed(supported)}." if supported else ""
    return WireError("invalid_value", f"Invalid value: {quoted(value)}.{values}", param)


def invalid_json(detail: object) -> WireError:
    """Make the error for a message that is not JSON."""
    return WireError("invalid_json", f"Invalid event: failed to parse JSON value. {detail}")


def param_of(path: str | None) -> str | None:
    """Turn the decoder's path into the API's: `$.session.tools[0].name` into `session.tools[0].name`.

    The decoder does not say which key of a free-form object it means; the path then ends at that object.
    """
    if path is None:
        return None
    return path.split("[...]", 1)[0].removeprefix("$").removeprefix(".") or None


def split_path(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Part the decoder's message from the path (`$.session.type`) at its end; None where it has none."""
    text = str(error)
    at = _AT.search(text)
    return (text[: at.start()], at["path"]) if at else (text, None)


def wire_error(error: msgspec.ValidationError, supported: Callable[[str], tuple[str, ...]] = lambda _: ()) -> WireError:
    """Turn the decoder's error into ours. `supported` gives the values to name when the member at a path has a bad one."""
    text, path = split_path(error)
    param = param_of(path)
    if missing := _MISSING.fullmatch(text):
        return missing_parameter(f"{param}.{missing['name']}" if param else missing["name"])
    if invalid := _INVALID.fullmatch(text):
        return unsupported_value(invalid["value"].strip("'"), supported(param or ""), param)
    if long := _TOO_LONG.fullmatch(text):
        return WireError(
            "string_above_max_length",
            f"Invalid '{param}': string too long. Expected a string with maximum length {long['limit']}.",
            param,
        )
    if expected := _EXPECTED.fullmatch(text):
        return _wrong_type(param, expected["expected"], expected["got"])
    return WireError("invalid_value", f"Invalid value for '{param}': {text}." if param else f"Invalid event: {text}.", param)


def _wrong_type(param: str | None, expected: str, got: str | None) -> WireError:
    kinds = [_WORDS.get(name, name) for name in expected.split(" | ")]
    wanted = kinds[0] if len(kinds) == 1 else f"one of {', '.join(kinds[:-1])} or {kinds[-1]}"
    instead = f", but got {_WORDS.get(got, got)} instead" if got else ""
    if param is None:
        return WireError("invalid_event", f"Invalid event: expected {wanted}{instead}.")
    return WireError("invalid_type", f"Invalid type for '{param}': expected {wanted}{instead}.", param)


class _TypeHead(msgspec.Struct):
    tag: Any = msgspec.field(name="type", default=msgspec.UNSET)


class _EventHead(msgspec.Struct):
    tag: Any = msgspec.field(name="event", default=msgspec.UNSET)


_HEADS: dict[str, msgspec.json.Decoder[_TypeHead] | msgspec.json.Decoder[_EventHead]] = {
    "type": msgspec.json.Decoder(_TypeHead),
    "event": msgspec.json.Decoder(_EventHead),
}


_skim = msgspec.json.Decoder(msgspec.Raw).decode


def read_tag(data: bytes, field: str) -> str:
    """Return the member "type" or "event" of a message that did not decode.

    Reads the message to its end, so that a broken one counts as broken JSON even if its type is unknown too. Raises WireError
    if the message is not JSON in UTF-8, not an object, or has no such member of type string.
    """
    try:
        # The decoder does not look into what it skips, neither at the encoding nor, once it has found a fault, at the rest.
        str(data, "utf-8")
        _skim(data)
        tag = _HEADS[field].decode(data).tag
    except msgspec.ValidationError as error:
        raise wire_error(error) from None
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None
    if tag is msgspec.UNSET:
        raise missing_parameter(field)
    if not isinstance(tag, str):
        raise WireError("invalid_type", f"Invalid type for '{field}': expected a string.", field)
    return tag
