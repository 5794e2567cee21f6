"""An agent by name: "package.module:attribute", so that every process of a cluster can import the same one."""

from __future__ import annotations

import importlib
from typing import Any

from orchestrator.errors import UserError

__all__ = ["load_agent", "load_run_config"]


def load_agent(reference: str) -> Any:
    """Import the agent. The attribute may be the agent or a function without parameters that returns it.

    Raises UserError when the module or the attribute does not exist, or when what is there is no agent.
    """
    found = _load(reference)
    if callable(found):
        found = found()
    if not (hasattr(found, "instructions") and hasattr(found, "tools") and isinstance(getattr(found, "name", None), str)):
        raise UserError(f'"{reference}" is a {type(found).__name__}, not a RealtimeAgent')
    return found


def load_run_config(reference: str | None) -> dict[str, Any]:
    """Import the settings of all runs, a `RealtimeRunConfig`; None stands for the defaults.

    Raises UserError when it does not exist or is no mapping.
    """
    found = {} if reference is None else _load(reference)
    if not isinstance(found, dict):
        raise UserError(f'"{reference}" is a {type(found).__name__}, not a RealtimeRunConfig dictionary')
    return found


def _load(reference: str) -> Any:
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        raise UserError(f'"{reference}" is not a name that can be imported: write package.module:attribute')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f'module "{error.name}" (for "{reference}") cannot be imported: install it or put its folder on PYTHONPATH'
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UserError(f'module "{module_name}" has no "{attribute}"') from None
