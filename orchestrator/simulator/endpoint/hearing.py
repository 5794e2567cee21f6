"""What the caller says aloud, on its way to the scenario: at once, or after somebody has recognised the words.

Pure. Recognition takes its time, and turns must reach the director in the order in which they were said, so everything that
comes after a turn that is still being recognised waits behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.outputs import RecognitionRequest, Recognize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.conversation import ItemAudio
    from orchestrator.simulator.endpoint.director import Heard
    from orchestrator.simulator.endpoint.state import SessionState

__all__ = ["Hearing"]

MOST_WAITING = 64
"""So many turns, and what comes after them, may wait for words; beyond that the scenario says what the oldest was."""


@dataclass
class _Waiting:
    """A turn that is being recognised, or (`request` None) something else that waits behind one."""

    act: Callable[[str | None], None]
    request: RecognitionRequest | None = None
    text: str | None = None

    @property
    def ready(self) -> bool:
        return self.request is None


class Hearing:
    """Tells the director what the caller says."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._waiting: deque[_Waiting] = deque()

    @property
    def busy(self) -> bool:
        """Whether words are still to come."""
        return bool(self._waiting)

    def spoken(self, item_id: str, audio: ItemAudio, on_heard: Callable[[Heard], None]) -> None:
        """A spoken turn; `on_heard` is called when the scenario knows of it."""
        director = self._state.director
        seconds = audio.milliseconds / 1000

        def tell(text: str | None) -> None:
            on_heard(director.hear_audio(seconds) if text is None else director.hear_recognized(text, seconds))

        if not self._state.options.recognition:
            tell(None)
            return
        request = RecognitionRequest(item_id, audio.data[: audio.size], audio.encoding)
        self._state.timeline.put(Recognize(request))
        self._wait(_Waiting(tell, request))

    def otherwise(self, action: Callable[[], None]) -> None:
        """Anything else that the director is to know of, in its place among what is said."""
        if self._waiting:
            self._wait(_Waiting(lambda _: action()))
        else:
            action()

    def recognized(self, request: RecognitionRequest, text: str | None) -> None:
        """The words of a turn are there, or cannot be found (None). One that nobody waits for is ignored."""
        for waiting in self._waiting:
            if waiting.request == request:
                waiting.request, waiting.text = None, text
                break
        self._flush()

    def _wait(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if len(self._waiting) > MOST_WAITING:
            self._waiting[0].request = None
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._waiting[0].ready:
            waiting = self._waiting.popleft()
            waiting.act(waiting.text)
