"""The command line: `orchestrator serve | sessions | replay | simulate | demo | loadtest | version`.

Each command's own module is imported when that command is asked for and not before. The library must not need Ray (only
`serve`, `demo` and `loadtest` reach for the cluster, inside their functions), a production node has no speech synthesis, and
`orchestrator version` should not take a second.

Exit status: 0 for success, 1 when a check failed, 2 for wrong usage or a fault, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TypeAlias

import msgspec

from orchestrator.errors import OrchestratorError, UserError

__all__ = ["main"]

AddArguments: TypeAlias = Callable[[argparse.ArgumentParser], None]
Run: TypeAlias = Callable[[argparse.Namespace], int]

FAULT = 2
INTERRUPTED = 130
_DISTRIBUTION = "realtime-orchestrator"


class _Command(msgspec.Struct, frozen=True):
    """`load` imports the command and returns what adds its arguments and what runs it."""

    help: str
    description: str
    load: Callable[[], tuple[AddArguments, Run]]


def _load_serve() -> tuple[AddArguments, Run]:
    from orchestrator.serve import add_arguments, run_service

    return add_arguments, run_service


def _load_simulate() -> tuple[AddArguments, Run]:
    from orchestrator.simulator.command import add_arguments, run_simulator

    return add_arguments, run_simulator


def _load_demo() -> tuple[AddArguments, Run]:
    from orchestrator.demo.command import add_arguments, run_demo

    return add_arguments, run_demo


def _load_loadtest() -> tuple[AddArguments, Run]:
    from orchestrator.loadtest.command import add_arguments, run_loadtest

    return add_arguments, run_loadtest


def _load_sessions() -> tuple[AddArguments, Run]:
    from orchestrator.journal.command import add_sessions_arguments, run_sessions

    return add_sessions_arguments, run_sessions


def _load_replay() -> tuple[AddArguments, Run]:
    from orchestrator.journal.command import add_replay_arguments, run_replay

    return add_replay_arguments, run_replay


def _load_version() -> tuple[AddArguments, Run]:
    def run(_: argparse.Namespace) -> int:
        print(f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}")
        return 0

    return lambda _: None, run


_COMMANDS = {
    "serve": _Command(
        "run an agent as a service: gateway, session actors, tool actors, supervisor",
        "Run an agent as a service. Starts a Ray of its own on this machine, or joins the cluster at --address. When the "
        "gateway accepts calls, one line of JSON on standard output says so. SIGTERM and Ctrl-C end it: no new calls, then "
        "the running ones are ended with a reason. Every setting can also be given as ORCHESTRATOR_<NAME> in the "
        "environment, secrets only there.",
        _load_serve,
    ),
    "sessions": _Command(
        "list the calls in the journal, show one with all that was said, or delete old ones",
        "Tell what the journal knows of calls: `list` names those that go on and who owns them, `show` rebuilds one with its "
        "conversation, its open tool calls and those whose outcome nobody knows, `prune` deletes the journals of calls that "
        "are over. Whether or not the service runs.",
        _load_sessions,
    ),
    "replay": _Command(
        "rebuild a call from its journal and check that it is whole",
        "Rebuild a call from its journal and check it: no entry is missing, each was written by who owned the call, and they "
        "lead to the history that the last owner had. Shows nothing of what was said. Exit status 0 only if every check holds, "
        "1 if one does not.",
        _load_replay,
    ),
    "simulate": _Command(
        "run the offline Realtime API, for trying and testing without an account",
        "Run the offline Realtime API: a WebSocket server that speaks the protocol, hears pauses, and says and calls what a "
        "scenario file tells it. It understands nothing; it is for trying, testing and load, never a stand-in for a real "
        "endpoint.",
        _load_simulate,
    ),
    "demo": _Command(
        "place one phone call on this machine, from end to end, and tell what happened",
        "Start everything on loopback, place one phone call as a carrier would, let it ask a question that needs a tool, "
        "interrupt the answer once, hang up, and print the call. Exit status 0 only if every step was seen.",
        _load_demo,
    ),
    "loadtest": _Command(
        "place many calls at once and measure added latency, lost frames, CPU and memory",
        "Place many simulated calls at once, 50 frames a second each, and measure what the service adds. Without --url it "
        "starts a service on this machine first. Exit status 0 only if no frame was lost and every session lived to the end.",
        _load_loadtest,
    ),
    "version": _Command("print the version", "Print the version.", _load_version),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `arguments` defaults to those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except OrchestratorError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="orchestrator",
        description="Many realtime voice conversations at once, on Ray, that outlive what fails beneath them.",
        epilog="`orchestrator COMMAND --help` explains a command. To see it work: `orchestrator demo`.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the arguments of the command that is meant are needed, and only its imports happen.
    chosen = next((word for word in words if not word.startswith("-")), None)
    run: Run | None = None
    for name, command in _COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=command.description)
        if name == chosen:
            add_arguments, run = _load(command)
            add_arguments(subparser)
    options = parser.parse_args(words)
    if run is None:
        raise AssertionError("argparse lets no unknown command pass")
    return run(options)


def _load(command: _Command) -> tuple[AddArguments, Run]:
    try:
        return command.load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("orchestrator", "actors"):
            raise
        raise UserError(f"this command needs {error.name}: pip install '{_DISTRIBUTION}[offline]'") from error
