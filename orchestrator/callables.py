"""Calling the program's own functions, plain or async, without letting one block a session's event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["call_user_function"]


async def call_user_function(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the program and return its result.

    An asynchronous one is awaited here; a plain one runs in a thread, and what it returns is awaited if it can be.
    Cancellation reaches an asynchronous function; a thread is left to end by itself.
    """
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004 - its kind matters
    if inspect.iscoroutinefunction(target):
        return await function(*arguments)
    result = await asyncio.to_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result
