"""The MCP servers of a session: what they offer, whether a call needs approval, and what it gives.

Pure, and nothing is connected to: the scenario says what each label offers. As with the live API, the tools of a server are
listed when a session names it, that takes a while, and a response that starts before the end does not see them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.simulator.endpoint.conversation import Memory
from orchestrator.simulator.json_text import json_text
from orchestrator.simulator.scenario import McpServer, fill
from orchestrator.wire.realtime_server import (
    ConversationItemAdded,
    ConversationItemDone,
    McpListToolsCompleted,
    McpListToolsFailed,
    McpListToolsInProgress,
)
from orchestrator.wire.realtime_types import (
    McpApprovalFilter,
    McpError,
    McpListedTool,
    McpListToolsItem,
    McpTool,
    McpToolFilter,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from orchestrator.simulator.endpoint.state import SessionState
    from orchestrator.simulator.scenario import McpOffer
    from orchestrator.wire.realtime_types import Tool

__all__ = ["McpServers", "Outcome"]

_UNREACHABLE = McpServer(fails=True)


class Outcome(msgspec.Struct, frozen=True):
    """What a call gives after so many seconds: an output or an error."""

    seconds: float
    output: str | None = None
    error: McpError | None = None


class McpServers:
    """The servers that one session has named so far."""

    def __init__(self, state: SessionState, offers: Mapping[str, McpServer]) -> None:
        self._state = state
        self._offers = offers
        self._tools: dict[str, McpTool] = {}
        self._listed: dict[str, tuple[McpListedTool, ...]] = {}

    def name(self, tools: Sequence[Tool]) -> None:
        """A session or a response has these tools: have those servers listed that are new, or named anew with other words."""
        for tool in tools:
            if isinstance(tool, McpTool) and self._tools.get(tool.server_label) != tool:
                self._tools[tool.server_label] = tool
                self._listed.pop(tool.server_label, None)
                self._list(tool)

    def listed(self, tools: Sequence[Tool]) -> dict[str, tuple[McpListedTool, ...]]:
        """What can be called by now, by the label of the server."""
        labels = [tool.server_label for tool in tools if isinstance(tool, McpTool)]
        return {label: self._listed[label] for label in labels if label in self._listed}

    def needs_approval(self, label: str, name: str) -> bool:
        """Whether the client must agree to a call. It must, unless it has said otherwise."""
        tool, offer = self._tools.get(label), self._offer(label, name)
        wanted = tool.require_approval if tool is not None else None
        if isinstance(wanted, McpApprovalFilter):
            if isinstance(wanted.always, McpToolFilter) and _selects(wanted.always, name, offer):
                return True
            return not (isinstance(wanted.never, McpToolFilter) and _selects(wanted.never, name, offer))
        return wanted != "never"

    def outcome(self, label: str, name: str, arguments: Any) -> Outcome:
        """What a call gives."""
        offer = self._offer(label, name)
        if offer is None:
            error = McpError(type="protocol_error", code=-32602, message=f"Unknown tool: {name}")
            return Outcome(0.0, error=error)
        if offer.error is not None:
            fault = offer.error
            code = UNSET if fault.code is None else fault.code
            return Outcome(offer.seconds, error=McpError(type=fault.type, code=code, message=fault.message))
        output = fill(offer.output, {"tool": {"name": name, "arguments": arguments}})
        return Outcome(offer.seconds, output if isinstance(output, str) else json_text(output))

    def _offer(self, label: str, name: str) -> McpOffer | None:
        return self._offers.get(label, _UNREACHABLE).find(name)

    def _list(self, tool: McpTool) -> None:
        state = self._state
        item = McpListToolsItem(id=state.ids.item(), server_label=tool.server_label, tools=())
        previous = state.conversation.insert(Memory(str(item.id), item))
        state.timeline.send(ConversationItemAdded(previous_item_id=previous, item=item))
        state.timeline.send(McpListToolsInProgress(item_id=str(item.id)))
        server = self._offers.get(tool.server_label, _UNREACHABLE)
        state.timeline.at(state.timeline.now + server.seconds, partial(self._listing_ends, tool, server, item))

    def _listing_ends(self, tool: McpTool, server: McpServer, item: McpListToolsItem) -> None:
        state, item_id = self._state, str(item.id)
        if server.fails:
            state.timeline.send(McpListToolsFailed(item_id=item_id))
        else:
            tools = tuple(_listed(offer) for offer in server.tools if _allowed(tool, offer))
            item = msgspec.structs.replace(item, tools=tools)
            state.conversation.update(item_id, item)
            state.timeline.send(McpListToolsCompleted(item_id=item_id))
            # A session may have named the server anew meanwhile.
            if self._tools.get(tool.server_label) is tool:
                self._listed[tool.server_label] = tools
        previous = state.conversation.previous(item_id) if item_id in state.conversation else None
        state.timeline.send(ConversationItemDone(previous_item_id=previous, item=item))


def _listed(offer: McpOffer) -> McpListedTool:
    return McpListedTool(
        name=offer.name, description=offer.description, input_schema=offer.input_schema, annotations=offer.annotations
    )


def _allowed(tool: McpTool, offer: McpOffer) -> bool:
    allowed = tool.allowed_tools
    if allowed is None or isinstance(allowed, UnsetType):
        return True
    if isinstance(allowed, McpToolFilter):
        return _selects(allowed, offer.name, offer)
    return offer.name in allowed


def _selects(chosen: McpToolFilter, name: str, offer: McpOffer | None) -> bool:
    """Whether a filter means a tool: by its name and, if it says so, by being one that only reads."""
    if not isinstance(chosen.tool_names, UnsetType) and chosen.tool_names is not None and name not in chosen.tool_names:
        return False
    if isinstance(chosen.read_only, bool):
        annotations = offer.annotations if offer is not None and offer.annotations is not None else {}
        return bool(annotations.get("readOnlyHint")) is chosen.read_only
    return True
