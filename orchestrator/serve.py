"""The body of `orchestrator serve`: settings from the environment and the flags, one ready line, and a clean end."""

from __future__ import annotations

import argparse
import os
import sys
import threading

import msgspec

from orchestrator.service import running_service, sigterm_as_interrupt
from orchestrator.settings import from_environment

__all__ = ["add_arguments", "run_service"]

# Flag, type, help. Each flag is the setting of the same name; secrets are given in the environment only.
_FLAGS: tuple[tuple[str, type, str], ...] = (
    ("host", str, "address to listen on; other than loopback needs keys (default: 127.0.0.1)"),
    ("port", int, "port to listen on, 0 for a free one (default: 8080)"),
    ("public_url", str, "the address that carriers know this service by, such as https://voice.example.com"),
    ("model_url", str, "endpoint of the Realtime API (default: wss://api.openai.com/v1/realtime)"),
    ("model_name", str, "model to ask for (default: gpt-realtime)"),
    ("max_sessions", int, "refuse more calls than this on one node (default: 200)"),
    ("session_actors", int, "session actors per node (default: 4)"),
    ("sessions_per_actor", int, "calls that one session actor may hold (default: 1)"),
    ("tool_actors", int, "tool actors per pool (default: 2)"),
    ("namespace", str, "Ray namespace of this deployment (default: realtime-orchestrator)"),
    ("log_level", str, "debug, info, warning or error (default: info)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("agent", metavar="MODULE:AGENT", help="the agent to run, such as orchestrator.demo.agent:agent")
    for name, kind, text in _FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--run-config", metavar="MODULE:CONFIG", help="a RealtimeRunConfig: model settings, guardrails")
    parser.add_argument("--address", help="address of a Ray cluster to join (default: a Ray of its own on this machine)")
    parser.add_argument(
        "--drain-seconds", type=float, default=10.0, help="how long running calls may go on at the end (default: %(default)s)"
    )


def run_service(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. A second signal cuts the drain short."""
    chosen = {name: getattr(options, name) for name, _, _ in _FLAGS}
    settings = from_environment(agent=options.agent, run_config=options.run_config, **chosen)
    # An agent module is looked for in the current directory first, as `python -m` does.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds texts
    service = running_service(settings, address=options.address, graceful_timeout=options.drain_seconds, on_progress=_tell)
    with sigterm_as_interrupt(), service as cluster:
        _say_ready(*cluster.gateway_address)
        try:
            # Without a timeout; the KeyboardInterrupt of a signal still ends it.
            threading.Event().wait()
        except KeyboardInterrupt:
            _tell("ending: no new calls, the running ones may finish")
    return 0


def _say_ready(host: str, port: int) -> None:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    ready = {
        "event": "service_ready",
        "realtime_url": f"ws://{place}/v1/realtime",
        "twilio_voice_url": f"http://{place}/twilio/voice",
        "metrics_url": f"http://{place}/metrics",
        "port": port,
        "pid": os.getpid(),
    }
    sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
