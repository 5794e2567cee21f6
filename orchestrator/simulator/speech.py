"""Text to speech on this machine: espeak-ng, from the wheel that carries its library and voices.

The speech is intelligible, not beautiful; it is made some hundred times faster than it plays. espeak-ng keeps its state in
globals of the library, so there is one engine per process and one lock around it. Rendering blocks for some milliseconds (the
library releases the interpreter meanwhile): an event loop calls `Speaker.cached` and leaves `Speaker.render` to a thread.
"""

from __future__ import annotations

import base64
import ctypes
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Encoding, duration_ms, encode, resample, stretch

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.audio import Samples

__all__ = ["Speaker", "SpeechRequest", "Utterance", "phonemes", "synthesize"]

WORDS_PER_MINUTE = 165
# Recordings are padded to whole telephone frames. espeak-ng's own lengths differ by a fraction of a millisecond from one run
# to the next; so two runs of one scenario have the same number of deltas.
PADDING_MS = 20


@dataclass(frozen=True)
class _Timbre:
    """What an espeak-ng voice is made of: one of its variants of a language, and a pitch from 0 to 99 about which it moves."""

    variant: str
    pitch: int


# One for each voice of the Realtime API, told apart by ear and by pitch; what is not listed sounds like alloy.
TIMBRES = {
    "alloy": _Timbre("", 65),
    "ash": _Timbre("+m3", 30),
    "ballad": _Timbre("+m2", 55),
    "cedar": _Timbre("+m4", 15),
    "coral": _Timbre("+f3", 60),
    "echo": _Timbre("+m1", 52),
    "marin": _Timbre("+f2", 50),
    "sage": _Timbre("+f1", 35),
    "shimmer": _Timbre("+f5", 80),
    "verse": _Timbre("+m7", 75),
}
DEFAULT_VOICE = "alloy"


class SpeechRequest(msgspec.Struct, frozen=True):
    """What is to be said, and how. Equal requests give the same utterance."""

    text: str
    voice: str = DEFAULT_VOICE
    speed: float = 1.0
    encoding: Encoding = Encoding.PCM16
    language: str = "en-us"


@dataclass(frozen=True)
class Utterance:
    """Speech in one format. Immutable, and shared by all sessions that say the same."""

    text: str
    encoding: Encoding
    audio: bytes = field(repr=False)
    _deltas: dict[int, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def duration_ms(self) -> float:
        """How long it plays, in milliseconds."""
        return duration_ms(len(self.audio), self.encoding)

    def deltas(self, delta_ms: int) -> tuple[str, ...]:
        """The audio as base64 slices of `delta_ms` each, the last one shorter. Sliced and encoded once per size."""
        known = self._deltas.get(delta_ms)
        if known is None:
            size = delta_ms * self.encoding.bytes_per_ms
            slices = (self.audio[start : start + size] for start in range(0, len(self.audio), size))
            known = self._deltas[delta_ms] = tuple(base64.b64encode(part).decode("ascii") for part in slices)
        return known


# Values of espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_PARAMETER_RATE, _PARAMETER_VOLUME, _PARAMETER_PITCH = 1, 2, 3
# Of 100. At its own level the loudest voices touch full scale, and a change of rate would clip them.
_VOLUME = 80
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_SLOWEST, _FASTEST = 80, 450
_SEPARATOR = "_"

_lock = threading.Lock()


class _Engine:
    """The library, initialised. Every use is under `_lock`."""

    def __init__(self) -> None:
        # Imported here and nowhere else: only the offline endpoint speaks, and a production node is installed without it.
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("speech needs espeak-ng: pip install 'realtime-orchestrator[offline]'") from None
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT)
        if self.rate <= 0:
            raise UserError("espeak-ng found no voices: reinstall with pip install 'realtime-orchestrator[offline]'")
        self._library.espeak_TextToPhonemes.restype = ctypes.c_void_p
        self._parts: list[bytes] = []
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        # The library keeps only the address, so the object must live as long as the library.
        self._callback = prototype(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: Any, count: int, _events: Any) -> int:
        if wave and count > 0:
            self._parts.append(ctypes.string_at(wave, count * 2))
        return 0

    def speak(self, text: str, voice: str, pitch: int, words_per_minute: int) -> Samples:
        self._parts.clear()
        self._choose(voice)
        parameters = ((_PARAMETER_RATE, words_per_minute), (_PARAMETER_VOLUME, _VOLUME), (_PARAMETER_PITCH, pitch))
        for parameter, value in parameters:
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.replace("\0", " ").encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._parts), "<i2").astype(np.int16)

    def phonemes(self, text: str, voice: str) -> str:
        self._choose(voice)
        place = ctypes.c_char_p(text.replace("\0", " ").encode())
        # The library moves the pointer behind what it has translated; text without the end of a sentence is one piece.
        translated = self._library.espeak_TextToPhonemes(ctypes.pointer(place), _CHARS_UTF8, ord(_SEPARATOR) << 8)
        return ctypes.string_at(translated).decode() if translated else ""

    def _choose(self, voice: str) -> None:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice!r}")


_engine: Callable[[], _Engine] = cache(_Engine)


def synthesize(request: SpeechRequest) -> Utterance:
    """Render one utterance, without a cache. Blocks; may be called from any thread. Raises UserError without espeak-ng."""
    with _lock:
        engine = _engine()
        timbre = TIMBRES.get(request.voice, TIMBRES[DEFAULT_VOICE])
        wanted = WORDS_PER_MINUTE * request.speed
        spoken = max(_SLOWEST, min(_FASTEST, round(wanted)))
        samples = engine.speak(request.text, request.language + timbre.variant, timbre.pitch, spoken)
        rate = engine.rate
    if wanted < _SLOWEST:
        samples = stretch(samples, _SLOWEST / wanted, rate)
    encoding = request.encoding
    audio = encode(resample(samples, rate, encoding.rate), encoding)
    frame = PADDING_MS * encoding.bytes_per_ms
    missing = -len(audio) % frame
    return Utterance(request.text, encoding, audio + encoding.silence * (missing // encoding.width))


def phonemes(text: str, language: str) -> list[str]:
    """The phonemes of a word or short phrase in espeak-ng's mnemonics, with its marks of stress. Blocks; as `synthesize`."""
    with _lock:
        return _engine().phonemes(text, language).split(_SEPARATOR)


class Speaker:
    """Renders speech and remembers it: least recently used utterances go once `cache_bytes` of audio are held.

    Thread-safe. Two threads that ask for the same new utterance at once may both render it; the first result stays.
    """

    def __init__(self, cache_bytes: int = 64 * 1024 * 1024) -> None:
        self._cache_bytes = cache_bytes
        self._held = 0
        self._utterances: OrderedDict[SpeechRequest, Utterance] = OrderedDict()
        self._guard = threading.Lock()

    def cached(self, request: SpeechRequest) -> Utterance | None:
        """The utterance if it is at hand. Never blocks for longer than a dictionary look-up."""
        with self._guard:
            utterance = self._utterances.get(request)
            if utterance is not None:
                self._utterances.move_to_end(request)
            return utterance

    def render(self, request: SpeechRequest) -> Utterance:
        """The utterance, made now if it is not at hand. Blocks. Raises UserError without espeak-ng."""
        known = self.cached(request)
        if known is not None:
            return known
        made = synthesize(request)
        with self._guard:
            known = self._utterances.setdefault(request, made)
            if known is made:
                self._held += len(made.audio)
                # The newest stays even if it is larger than the whole allowance: it is about to be used.
                while self._held > self._cache_bytes and len(self._utterances) > 1:
                    _, dropped = self._utterances.popitem(last=False)
                    self._held -= len(dropped.audio)
            return known
