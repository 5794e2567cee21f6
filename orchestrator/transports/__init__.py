"""Legs: connections that move messages and know nothing of conversations."""

from __future__ import annotations

from orchestrator.transports.base import (
    DEFAULT_OPTIONS,
    Leg,
    LegListener,
    LegOptions,
    LegState,
    LegStatistics,
    OpenListener,
    RunListener,
)
from orchestrator.transports.leg_server import LegServer, serve
from orchestrator.transports.memory import MemoryPair, memory_pair
from orchestrator.transports.opening import accept, connect, resume
from orchestrator.transports.receive_buffer import ReceiveBuffer, anonymous_buffer, capacity_for
from orchestrator.transports.server_leg import Accept, Refuse, Route
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.shared_reader import SharedReader

__all__ = [
    "DEFAULT_OPTIONS",
    "Accept",
    "Leg",
    "LegListener",
    "LegOptions",
    "LegServer",
    "LegState",
    "LegStatistics",
    "MemoryPair",
    "OpenListener",
    "ReceiveBuffer",
    "Refuse",
    "Route",
    "RunListener",
    "SessionPage",
    "SharedReader",
    "accept",
    "anonymous_buffer",
    "capacity_for",
    "connect",
    "memory_pair",
    "resume",
    "serve",
]
