"""A recording of a call as its caller experienced it: what was said on the left, what was heard on the right."""

from __future__ import annotations

import wave
from pathlib import Path

from orchestrator.simulator.carrier.playout import FRAME_BYTES, FRAME_SECONDS, SILENCE

__all__ = ["Recording"]

_LIMIT_FRAMES = 30_000  # ten minutes: a recording must not fill the memory


class Recording:
    """A `FrameSink` that can be written as a stereo WAV file of 8 kHz."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._said: dict[int, bytes] = {}
        self._heard: dict[int, bytes] = {}

    def said(self, frame: bytes, at: float) -> None:
        """Take a frame that the caller spoke."""
        self._put(self._said, frame, at)

    def heard(self, frame: bytes, at: float) -> None:
        """Take a frame that the caller heard."""
        self._put(self._heard, frame, at)

    def write(self, path: Path) -> None:
        """Write the WAV file. Blocks; needs the extra `offline`."""
        # Imported here: numpy comes with the extra, and a call without a recording does not need it.
        import numpy as np

        from orchestrator.simulator.audio import mulaw_decode

        length = max((*self._said, *self._heard), default=-1) + 1
        quiet = SILENCE * FRAME_BYTES
        sides = [
            mulaw_decode(b"".join(side.get(index, quiet) for index in range(length))) for side in (self._said, self._heard)
        ]
        with wave.open(str(path), "wb") as file:
            file.setparams((2, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.stack(sides, axis=1).astype("<i2").tobytes())

    def _put(self, side: dict[int, bytes], frame: bytes, at: float) -> None:
        if self._began_at is None:
            self._began_at = at
        index = round((at - self._began_at) / FRAME_SECONDS)
        # Playback starts anew after each pause, between two frames of the other side: two frames may fall on one place.
        while index in side:
            index += 1
        if 0 <= index < _LIMIT_FRAMES:
            side[index] = frame
