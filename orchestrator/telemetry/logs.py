"""Structured logs: one JSON object per line, with an event name and bound fields.

Nothing that a caller or a model said and no audio belongs into a log, nor does a secret. A processor enforces what can be
enforced: values under telling keys and wrapped secrets never reach the stream.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from orchestrator.errors import SettingsError
from orchestrator.settings import Secret

__all__ = ["bind", "configure", "get_logger", "redact"]

_REDACTED = "[redacted]"
_WITHHELD = "[withheld]"
_SECRET_KEY = re.compile(r"authorization|api[_-]?key|token|secret|signature|passw|cookie|credential", re.IGNORECASE)
_PRIVATE_KEYS = frozenset({"arguments", "audio", "delta", "instructions", "output", "payload", "transcript"})
# A secret inside a longer text, as in an error message that quotes a header.
_INLINE_SECRET = re.compile(r"(Bearer\s+|openai-insecure-api-key\.|\bsk-|\bwhsec_)[^\s,;\"']+", re.IGNORECASE)
_MAX_TEXT = 2000
_MAX_DEPTH = 6


class _Lines:
    """The stream, with a reader that may have gone: a log line that nobody can read must not end a call."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log lines of `level` and above to `stream`, by default standard error.

    Raises SettingsError for an unknown level. May be called again; later lines go to the later stream.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise SettingsError(f"log_level {level!r} is unknown: use debug, info, warning or error")
    lines = _Lines(sys.stderr if stream is None else stream)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, lines)),
        cache_logger_on_first_use=False,
    )


def get_logger() -> FilteringBoundLogger:
    """Return a logger. It may be made at import time: it follows the configuration that holds when a line is written."""
    return cast(FilteringBoundLogger, structlog.get_logger())


def bind(**fields: Any) -> FilteringBoundLogger:
    """Return a logger that adds these fields to each of its lines, e.g. `session_id`."""
    return get_logger().bind(**fields)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace secrets and private content, and make every value plain JSON. A structlog processor."""
    return {str(key): _clean(str(key), value, 0) for key, value in event.items()}


def _clean(key: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Secret) or _SECRET_KEY.search(key):
        return _REDACTED
    if key in _PRIVATE_KEYS and isinstance(value, (str, bytes, bytearray, memoryview)):
        return _WITHHELD
    if isinstance(value, str):
        return _INLINE_SECRET.sub(rf"\1{_REDACTED}", value)[:_MAX_TEXT]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if depth >= _MAX_DEPTH:
        return "[deep]"
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): _clean(str(name), item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(key, item, depth + 1) for item in value]
    return _clean(key, repr(value), depth)


def _to_json(event: EventDict, **_options: Any) -> str:
    return msgspec.json.encode(event).decode()
