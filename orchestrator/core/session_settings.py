"""The settings of a model session as its endpoint holds them, so that another endpoint can be given the same.

An update changes what it names: members of the session, of `audio.input` and of `audio.output`, each as a whole. One that is
refused changes nothing. Source: the Realtime API's `session.update`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["InputRules", "SessionSettings"]

PCM_BYTES_PER_MS = 48.0
G711_BYTES_PER_MS = 8.0
MAX_WAITING = 64


class InputRules:
    """What the settings say about the caller's audio."""

    __slots__ = ("answers", "bytes_per_ms", "detects", "transcribes")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        audio = (settings.get("audio") or {}).get("input") or {}
        form = audio.get("format") or {}
        kind = form.get("type", "audio/pcm") if isinstance(form, Mapping) else "audio/pcm"
        self.bytes_per_ms = PCM_BYTES_PER_MS if kind == "audio/pcm" else G711_BYTES_PER_MS
        detection = audio.get("turn_detection", {})
        # Left alone, an endpoint detects turns.
        self.detects = detection is not None
        # Does it answer a turn of its own accord?
        self.answers = self.detects and (detection or {}).get("create_response") is not False
        self.transcribes = bool(audio.get("transcription"))


class SessionSettings:
    """The updates of one session: what was confirmed, merged, and what was sent since."""

    def __init__(self) -> None:
        self._confirmed: dict[str, Any] = {}
        self._waiting: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def recall(self, confirmed: Mapping[str, Any], waiting: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Go on where the settings of another process were."""
        self._confirmed = dict(confirmed)
        self._waiting = OrderedDict(waiting)

    @property
    def confirmed(self) -> dict[str, Any]:
        """What the endpoint has taken, as the `session` of one update."""
        return self._confirmed

    @property
    def waiting(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The updates that were not answered yet: id and `session`, oldest first."""
        return list(self._waiting.items())

    @property
    def rules(self) -> InputRules:
        """What holds for audio that is sent now: the endpoint reads in order, so updates on their way count."""
        settings = self._confirmed
        for update in self._waiting.values():
            settings = _merged(settings, update)
        return InputRules(settings)

    def sent(self, event_id: str, session: Mapping[str, Any]) -> None:
        """An update was sent, or will be as soon as there is a connection."""
        self._waiting[event_id] = session
        if len(self._waiting) > MAX_WAITING:
            # An endpoint that answers none of so many has most likely taken them.
            self.confirm_oldest()

    def confirm_oldest(self) -> None:
        """The endpoint answered; it does so in order, and without naming the update."""
        if self._waiting:
            _, session = self._waiting.popitem(last=False)
            self._confirmed = _merged(self._confirmed, session)

    def refused(self, event_id: str | None) -> bool:
        """The endpoint refused an update. Returns False for one that is not known."""
        return self._waiting.pop(event_id or "", None) is not None


def _merged(base: Mapping[str, Any], update: Mapping[str, Any], *, depth: int = 2) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        below = merged.get(key)
        if depth and key in ("audio", "input", "output") and isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merged(below, value, depth=depth - 1)
        else:
            merged[key] = value
    return merged
