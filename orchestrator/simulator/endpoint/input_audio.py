"""The input audio buffer of a session: what was appended and not committed yet, and the turns that are found in it.

Pure. All positions are milliseconds of audio appended since the session began, whatever became of that audio since.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from orchestrator.errors import WireError
from orchestrator.simulator.audio import duration_ms
from orchestrator.simulator.endpoint.vad import VoiceDetector

if TYPE_CHECKING:
    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.vad import Edge, VadKind, VadSettings

__all__ = ["InputBuffer", "decode_audio"]

SHORTEST_COMMIT_MS = 100
IDLE_MS = 10_000
"""While nobody speaks and a detector listens, only so much is kept: enough for any prefix padding, and for a client that
commits by hand."""
LONGEST_MS = 15 * 60_000
"""A buffer that is never committed loses its beginning."""


def decode_audio(payload: str, encoding: Encoding, param: str | None = None) -> bytes:
    """Base64 to bytes. Raises WireError, worded as the API does, if it is not that or is empty."""
    kind = "mono PCM16 at 24kHz" if encoding.width == 2 else "mono G.711 at 8kHz"
    try:
        data = binascii.a2b_base64(payload, strict_mode=True)
    except (binascii.Error, ValueError):
        message = f"Invalid 'audio'. Expected base64-encoded audio bytes ({kind}) but got an invalid value."
        raise WireError("invalid_value", message, param) from None
    if not data:
        raise WireError(
            "invalid_value", f"Invalid 'audio'. Expected base64-encoded audio bytes ({kind}) but got empty bytes.", param
        )
    return data


class InputBuffer:
    """Uncommitted audio of one session.

    With a detector (`vad` is not None) `append` reports where speech starts and stops. The caller then takes the turn with
    `take`; without one, the client says where a turn ends.
    """

    def __init__(self, encoding: Encoding, vad: VadSettings | None, kind: VadKind = "energy") -> None:
        self._encoding = encoding
        self._kind = kind
        self._bytes_per_ms = encoding.bytes_per_ms
        self._data = bytearray()
        self._appended_ms = 0.0
        self._turn_start: int | None = None
        self._detector: VoiceDetector | None = None
        self._set_detector(vad)

    @property
    def encoding(self) -> Encoding:
        """The format of the audio."""
        return self._encoding

    @property
    def detects(self) -> bool:
        """Whether it finds turns by itself."""
        return self._detector is not None

    @property
    def held_ms(self) -> float:
        """How much uncommitted audio there is."""
        return duration_ms(len(self._data), self._encoding)

    @property
    def appended_ms(self) -> int:
        """How much audio there was in this session: the present, on its clock."""
        return int(self._appended_ms)

    def configure(self, encoding: Encoding, vad: VadSettings | None) -> None:
        """Go on under other settings. Audio of another format cannot be joined to what is there, so that is dropped."""
        if encoding is not self._encoding:
            self._data.clear()
            self._turn_start = None
            self._encoding = encoding
            self._bytes_per_ms = encoding.bytes_per_ms
            self._detector = None
        self._set_detector(vad)

    def append(self, data: bytes) -> list[Edge]:
        """Add audio; returns the edges of speech in it, in order. The buffer already holds all of `data`."""
        self._data += data
        self._appended_ms += len(data) / self._bytes_per_ms
        edges = self._detector.append(data) if self._detector is not None else []
        if not edges:
            self._trim()
        return edges

    def begin_turn(self, start_ms: int) -> None:
        """Speech began: from here on the audio is kept."""
        self._turn_start = start_ms

    def take_turn(self, end_ms: int) -> bytes:
        """The audio of the turn that ended here; what came before it goes."""
        start = self._offset(self._turn_start if self._turn_start is not None else 0)
        end = self._offset(end_ms)
        turn = bytes(self._data[start:end])
        del self._data[:end]
        self._turn_start = None
        return turn

    def take_silence(self, start_ms: int) -> bytes:
        """The audio since then, in which nobody spoke; all there is goes."""
        data = bytes(self._data[self._offset(start_ms) :])
        self.clear()
        return data

    def commit(self) -> bytes:
        """All uncommitted audio. Raises WireError if it is too short to be a turn."""
        if self.held_ms < SHORTEST_COMMIT_MS:
            raise WireError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer only has "
                f"{self.held_ms:.2f}ms of audio.",
            )
        data = bytes(self._data)
        self.clear()
        return data

    def clear(self) -> None:
        """Drop all uncommitted audio, and the turn in progress."""
        self._data.clear()
        self._turn_start = None
        if self._detector is not None:
            self._detector.forget_turn()

    def _set_detector(self, vad: VadSettings | None) -> None:
        if vad is None:
            self._detector = None
            self._turn_start = None
        elif self._detector is None:
            self._detector = VoiceDetector(vad, self._encoding, round(self._appended_ms), self._kind)
        else:
            self._detector.configure(vad)

    def _offset(self, position_ms: float) -> int:
        """Index in the buffer of a position on the clock of the session, on a whole sample."""
        samples = round((position_ms - (self._appended_ms - self.held_ms)) * self._encoding.rate / 1000)
        return max(0, min(len(self._data), samples * self._encoding.width))

    def _trim(self) -> None:
        limit = LONGEST_MS if self._detector is None or self._turn_start is not None else IDLE_MS
        excess = len(self._data) - limit * self._bytes_per_ms
        # In large steps: moving the rest of the buffer for every frame would cost more than all else.
        if excess > limit * self._bytes_per_ms // 2:
            del self._data[: excess // self._bytes_per_ms * self._bytes_per_ms]
