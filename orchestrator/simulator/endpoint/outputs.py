"""What a model session wants done: everything that the machine gives back to the shell around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.wire.realtime import ServerEvent

if TYPE_CHECKING:
    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.speech import SpeechRequest

__all__ = ["Close", "Output", "RecognitionRequest", "Recognize", "Render"]


@dataclass(frozen=True)
class Render:
    """Speech is needed: make it, then call `SessionMachine.provide`."""

    request: SpeechRequest


@dataclass(frozen=True)
class RecognitionRequest:
    """A spoken turn of the caller, whose words are wanted."""

    item_id: str
    audio: bytes
    encoding: Encoding


@dataclass(frozen=True)
class Recognize:
    """The words of a spoken turn are needed: find them, then call `SessionMachine.recognized`."""

    request: RecognitionRequest


@dataclass(frozen=True)
class Close:
    """The session is over: close the socket with this code and reason. Nothing comes after it."""

    code: int
    reason: str


Output: TypeAlias = ServerEvent | Render | Recognize | Close
