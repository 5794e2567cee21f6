"""Speech recognition for the offline endpoint: which of a scenario's phrases was said.

PocketSphinx with a grammar that holds the phrases and nothing else. That small choice is what makes a small old recogniser
usable: it does not write down free speech, it tells a few known sentences apart, and says None where none of them fits.
English only, since that is the model that its wheel carries.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from orchestrator.errors import OrchestratorError, UserError
from orchestrator.simulator.audio import decode, resample
from orchestrator.simulator.pronunciation import pronounce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.scenario import Scenario

__all__ = ["PhraseRecognizer", "RecognitionDesk", "Recognizer", "phrases_of"]

RATE = 16_000
LONGEST_SECONDS = 15
"""Of a longer turn the beginning is listened to: what is recognised are sentences."""
SHORTEST_SECONDS = 0.2
TAIL_SECONDS = 0.3
"""Silence put behind the audio, since a detector of voices cuts close to the last word."""
ENOUGH = 0.6
"""The share of a phrase's words that must be understood. The recogniser often gives up on the last word of a sentence."""
MOST_WAITING = 16
"""So many turns may wait for the thread; what comes then is not recognised."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|\d")
# What PocketSphinx starts with. Its running average of the channel would else carry over from one caller to the next.
_FIRST_MEANS = "40,3,-1,0,0,0,0,0,0,0,0,0,0"

_log = logging.getLogger(__name__)


class Recognizer(Protocol):
    """Finds the words of one spoken turn."""

    def recognize(self, audio: bytes, encoding: Encoding) -> str | None:
        """What was said, or None if that is not known. Blocks; may be called from any thread."""


def phrases_of(scenario: Scenario) -> list[str]:
    """What a caller may say in this scenario: each `heard` without a placeholder in it, once, in order."""
    return list(dict.fromkeys(turn.heard for turn in scenario.turns if _words(turn.heard) and "{" not in turn.heard))


class PhraseRecognizer:
    """Tells `phrases` apart. The same audio always gives the same answer, whatever was heard before.

    Raises UserError where PocketSphinx is not installed, for a `language` other than English, and where there is no phrase.
    Building it takes some tenths of a second and 80 MB.
    """

    def __init__(self, phrases: Iterable[str], language: str = "en-us") -> None:
        self._phrases = {_words(phrase): phrase for phrase in phrases if _words(phrase)}
        if not language.startswith("en"):
            raise UserError(f"only English can be recognised, and the scenario's language is {language!r}")
        if not self._phrases:
            raise UserError("there is nothing to recognise: no turn of the scenario has a `heard` without a placeholder")
        self._decoder = _decoder()
        self._guard = threading.Lock()
        self._add_missing_words()
        self._decoder.add_jsgf_string("phrases", _grammar(self._phrases))
        self._decoder.activate_search("phrases")

    def recognize(self, audio: bytes, encoding: Encoding) -> str | None:
        """The phrase that was said, word for word as it was given, or None. Blocks; may be called from any thread."""
        audio = audio[: LONGEST_SECONDS * 1000 * encoding.bytes_per_ms]
        samples = resample(decode(audio, encoding), encoding.rate, RATE)
        if len(samples) < SHORTEST_SECONDS * RATE:
            return None
        padded = np.concatenate([samples, np.zeros(int(TAIL_SECONDS * RATE), np.int16)])
        with self._guard:
            words = self._decode(padded.astype("<i2", copy=False).tobytes())
        return self._phrase(words)

    def _decode(self, pcm: bytes) -> tuple[str, ...]:
        decoder = self._decoder
        decoder.set_cmn(_FIRST_MEANS)
        decoder.start_utt()
        # As a whole: the average of the channel is then taken over all of it, without which every second turn is lost.
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return tuple(hypothesis.hypstr.split()) if hypothesis is not None else ()

    def _phrase(self, words: tuple[str, ...]) -> str | None:
        """The phrase of these words, or the only one that begins with them, if most of it is there."""
        known = self._phrases.get(words)
        if known is not None:
            return known
        begun = [phrase for phrase in self._phrases if phrase[: len(words)] == words]
        if len(begun) != 1 or len(words) < ENOUGH * len(begun[0]):
            return None
        return self._phrases[begun[0]]

    def _add_missing_words(self) -> None:
        """A name that the dictionary does not have is pronounced as the speech synthesiser would."""
        for word in sorted({word for words in self._phrases for word in words}):
            if self._decoder.lookup_word(word) is None:
                self._decoder.add_word(word, pronounce(word), update=True)


class RecognitionDesk:
    """Has turns recognised in a thread of `pool`, without keeping the loop waiting. Lives on one loop; bounded."""

    def __init__(self, recognizer: Recognizer, pool: Executor) -> None:
        self._recognizer = recognizer
        self._pool = pool
        self._waiting = 0

    def order(self, audio: bytes, encoding: Encoding, deliver: Callable[[str | None], None]) -> None:
        """Have a turn recognised; `deliver` is called once, later, on the loop: with None if it could not be."""
        loop = asyncio.get_running_loop()
        if self._waiting >= MOST_WAITING:
            _log.warning("%d spoken turns wait to be recognised already: the scenario says what this one was", self._waiting)
            loop.call_soon(deliver, None)
            return
        self._waiting += 1
        found = loop.run_in_executor(self._pool, self._recognizer.recognize, audio, encoding)
        found.add_done_callback(lambda future: self._hand_out(future, deliver))

    def _hand_out(self, future: asyncio.Future[str | None], deliver: Callable[[str | None], None]) -> None:
        self._waiting -= 1
        text: str | None = None
        if not future.cancelled():
            fault = future.exception()
            if fault is None:
                text = future.result()
            else:
                why = fault.message if isinstance(fault, OrchestratorError) else type(fault).__name__
                _log.error("a spoken turn could not be recognised: %s", why)
        deliver(text)


def _decoder() -> Any:
    # Imported here and nowhere else: it is an extra that only this needs.
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise UserError("recognition needs PocketSphinx: pip install 'realtime-orchestrator[recognition]'") from None
    return Decoder(samprate=RATE, lm=None, loglevel="FATAL")


def _words(phrase: str) -> tuple[str, ...]:
    """The words of a phrase as they are said: in small letters, digits one by one."""
    found = _WORD.findall(phrase.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return tuple(_DIGITS[int(word)] if word.isdecimal() else word for word in found)


def _grammar(phrases: Iterable[tuple[str, ...]]) -> str:
    """A grammar in JSGF of which each phrase is one sentence."""
    sentences = " | ".join(" ".join(words) for words in phrases)
    return f"#JSGF V1.0;\ngrammar scenario;\npublic <phrase> = {sentences};\n"
