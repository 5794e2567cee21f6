"""Which Realtime API an example talks to: the offline one, or the real one. The user says which; nothing is chosen silently."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, UserError
from orchestrator.realtime import RealtimeModelConfig

if TYPE_CHECKING:
    from orchestrator.simulator.server import SimulatorServer

__all__ = ["add_endpoint_options", "offline_endpoint", "open_endpoint", "run_example"]

WRONG_USE = 2
INTERRUPTED = 130
NO_ENDPOINT = """\
This example needs a Realtime API to talk to. Choose one:
  --offline               an endpoint on this machine that follows a script; no account, no key
  OPENAI_API_KEY=sk-...   the OpenAI Realtime API; it is charged to your account"""


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that all examples share."""
    parser.add_argument("--offline", action="store_true", help="talk to an endpoint on this machine that follows a script")
    parser.add_argument("--model", help="name of the model (default: the library's)")


@asynccontextmanager
async def open_endpoint(options: argparse.Namespace, scenario: str | Path) -> AsyncIterator[RealtimeModelConfig]:
    """Say which API it is, and yield how to reach it. The offline one runs in this process and ends with the block.

    `scenario` is what the offline one follows: a name that ships with it, or a path. Raises UserError where it cannot run.
    """
    config: RealtimeModelConfig = {}
    if options.model:
        config["initial_model_settings"] = {"model_name": options.model}
    if not options.offline:
        print("Talking to the OpenAI Realtime API with OPENAI_API_KEY; it is charged to your account.\n", flush=True)
        yield config
        return
    async with offline_endpoint(scenario) as server:
        # The key is checked for being there only. A real one from the environment has no business here.
        yield {**config, "url": f"{server.url}?model={options.model or 'gpt-realtime'}", "api_key": "offline"}


@asynccontextmanager
async def offline_endpoint(scenario: str | Path) -> AsyncIterator[SimulatorServer]:
    """Start the offline endpoint, say so, and yield it; it ends with the block. Raises UserError where it cannot run."""
    try:
        # Only here: what these need comes with the extra `offline`, and the real API can do without.
        from orchestrator.simulator.scenario import load_scenario
        from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
    except ModuleNotFoundError as error:
        raise UserError(f"--offline needs {error.name}: pip install 'realtime-orchestrator[offline]'") from None
    async with SimulatorServer(SimulatorOptions(load_scenario(str(scenario)))) as server:
        print(f"Talking to the offline endpoint at {server.url}.", flush=True)
        print("It understands nothing: it follows a script, and tools and handoffs are really carried out.\n", flush=True)
        yield server


def run_example(main: Callable[[argparse.Namespace], Coroutine[Any, Any, int]], options: argparse.Namespace) -> int:
    """Run an example and return the exit status: 2 where it cannot run, 130 after Ctrl-C, else what `main` returns."""
    if not options.offline and not os.environ.get("OPENAI_API_KEY"):
        print(NO_ENDPOINT, file=sys.stderr)
        return WRONG_USE
    try:
        return asyncio.run(main(options))
    except OrchestratorError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        # asyncio has cancelled `main` and waited for it, so session and endpoint are closed by now.
        print()
        return INTERRUPTED
