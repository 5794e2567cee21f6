"""Makes another agent the active one, and the old one again when the model refuses the new one's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.inputs import RealtimeModelSendSessionUpdate
from orchestrator.errors import SettingsRefusedError
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import DispatchTable, agent_settings
from orchestrator.realtime.inside import Inside

__all__ = ["AgentSwitch", "Prepared"]

# Tells the program that the conversation went from one agent to another.
Announce = Callable[[RealtimeAgent[Any], RealtimeAgent[Any]], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An agent that is ready to take over: its settings for the model, and what it may call."""

    settings: Mapping[str, Any]
    table: DispatchTable


@dataclass(frozen=True, slots=True)
class _Made:
    """The latest switch, as far as it takes to undo it."""

    prepared: Prepared
    previous: DispatchTable
    announce: Announce | None


class AgentSwitch:
    """The changes of the active agent in one session.

    The new agent's settings go to the model without waiting for its answer, which would cost the caller a silence at every
    handoff. A model that must be awaited says at once whether it takes them; an endpoint says so later, and then what it
    refused is undone.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._latest: _Made | None = None

    async def prepare(self, target: RealtimeAgent[Any]) -> Prepared:
        """Evaluate an agent's instructions, tools and handoffs. Raises what they raise; nothing has changed then."""
        inside = self._inside
        settings, table = await agent_settings(target, inside.context, inside.base_settings, {})
        if "prompt" not in settings and inside.agent.prompt is not None:
            # What an update leaves out stays as it is, so the old agent's prompt has to be taken away.
            settings["prompt"] = None
        return Prepared(settings, table)

    async def make(self, prepared: Prepared, announce: Announce | None = None) -> None:
        """Let the prepared agent take over; `announce` is called once the model has its settings.

        Raises what the model raises when it refuses them at once; the old agent then stays. Cancelling it leaves the settings
        on their way.
        """
        inside = self._inside
        made = self._latest = _Made(prepared, inside.table, announce)
        # Before the settings are on their way: the model may answer with a call of a tool that only the new agent has.
        inside.take_over(prepared.table)
        try:
            await inside.send(RealtimeModelSendSessionUpdate(dict(prepared.settings)))
        except Exception:
            self._undo(made)
            raise
        if announce is not None:
            announce(made.previous.agent, prepared.table.agent)

    def refused(self, error: SettingsRefusedError) -> None:
        """The model refused settings that it had been given; nothing happens unless they are those of the latest switch."""
        made = self._latest
        if made is None or error.settings != made.prepared.settings:
            return
        if self._undo(made) and made.announce is not None:
            made.announce(made.prepared.table.agent, made.previous.agent)

    def _undo(self, made: _Made) -> bool:
        """Give the conversation back, unless somebody else has taken it over since."""
        if self._latest is made:
            self._latest = None
        if self._inside.table is not made.prepared.table:
            return False
        self._inside.take_over(made.previous)
        return True
