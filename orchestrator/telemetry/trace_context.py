"""Carries the place in a trace from one process to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["remote_parent"]


@contextmanager
def remote_parent(traceparent: str | None) -> Iterator[None]:
    """Let spans that are started inside be children of the span that `traceparent` (W3C Trace Context) names.

    Nothing happens for None, for text that is no such name, and where OpenTelemetry is not installed.
    """
    if traceparent is None:
        yield
        return
    try:
        # Here, since the package belongs to an extra.
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        yield
        return
    token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
