"""What the parts of one model session share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.conversation import Conversation
    from orchestrator.simulator.endpoint.director import Director
    from orchestrator.simulator.endpoint.options import ModelOptions
    from orchestrator.simulator.endpoint.session_view import SessionView
    from orchestrator.simulator.endpoint.timeline import Timeline
    from orchestrator.simulator.ids import IdSource

__all__ = ["SessionState"]


@dataclass
class SessionState:
    """One session. Only `view` is ever replaced, by `session.update`."""

    options: ModelOptions
    ids: IdSource
    timeline: Timeline
    conversation: Conversation
    director: Director
    view: SessionView
