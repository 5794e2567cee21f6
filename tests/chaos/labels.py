"""Labels in audio: every frame of 20 ms says whose it is and its number, so that what is missing or doubled shows at the end.

A label is made of µ-law's sixteen quietest codes, some 60 dB below full scale: a detector of voices hears nothing, and what
passes audio on byte for byte keeps it. Pure, as are the checks that read labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from orchestrator.simulator.audio import Encoding

__all__ = [
    "FRAME_MS",
    "LABEL_BYTES",
    "SENTENCE_FRAMES",
    "Hearing",
    "Label",
    "Sentence",
    "frames_of",
    "make_label",
    "read_label",
    "turn_of",
]

FRAME_MS = 20
LABEL_BYTES = 16
# How many frames a sentence of the offline endpoint has.
SENTENCE_FRAMES = 40

_MAGIC = (0xA, 0x5, 0xC, 0x3)
_QUIET = 0xF0


class Label(NamedTuple):
    """`source` (below 65536) is a caller's number or the turn that a sentence answers; `number` counts from 0."""

    source: int
    number: int


def make_label(label: Label) -> bytes:
    """Write a label."""
    digits = [int(digit, 16) for digit in f"{label.source:04x}{label.number:06x}"]
    check = sum((index + 1) * digit for index, digit in enumerate(digits)) & 0xFF
    return bytes(_QUIET | digit for digit in (*_MAGIC, *digits, check >> 4, check & 15))


def read_label(frame: bytes) -> Label | None:
    """Read the label at the beginning of a frame, or None where there is none."""
    head = frame[:LABEL_BYTES]
    if len(head) < LABEL_BYTES or any(code < _QUIET for code in head):
        return None
    digits = [code & 15 for code in head]
    if tuple(digits[:4]) != _MAGIC:
        return None
    label = Label(
        int("".join(f"{digit:x}" for digit in digits[4:8]), 16), int("".join(f"{digit:x}" for digit in digits[8:14]), 16)
    )
    return label if make_label(label) == head else None


def frames_of(audio: bytes, encoding: Encoding) -> Iterator[bytes]:
    """Yield the whole frames of a piece of audio, and the rest, if any, as a last one."""
    size = FRAME_MS * encoding.bytes_per_ms
    return (audio[start : start + size] for start in range(0, len(audio), size))


def turn_of(text: str) -> int:
    """Return the number that a sentence names, 0 for one that names none."""
    digits = "".join(character for character in text if character.isdecimal())
    return int(digits) if digits else 0


class Hearing(msgspec.Struct):
    """What one model session has heard of one caller. `first` to `last`, both included, in order but for what is counted."""

    caller: int
    first: int
    last: int
    lost: int = 0
    doubled: int = 0

    def hear(self, number: int) -> None:
        """Take the next frame."""
        if number > self.last:
            self.lost += number - self.last - 1
            self.last = number
        else:
            self.doubled += 1


class Sentence:
    """The frames of one answer as they arrive: those of one turn, from the first to the last, in order.

    A sentence may be broken off at any frame, and begin anew after that.
    """

    def __init__(self) -> None:
        self.complete: list[int] = []
        self.broken_off = 0
        self.faults: list[str] = []
        self._turn: int | None = None
        self._next = 0

    def take(self, label: Label | None) -> None:
        """Take the next frame."""
        if label is None:
            self.faults.append("a frame without a label")
            return
        turn, number = label
        if number == 0:
            self.break_off()
        elif turn != self._turn or number != self._next:
            self.faults.append(f"frame {number} of turn {turn} instead of frame {self._next} of turn {self._turn}")
        self._turn, self._next = turn, number + 1
        if self._next == SENTENCE_FRAMES:
            self.complete.append(turn)
            self._turn, self._next = None, 0

    def break_off(self) -> None:
        """What was begun is not gone on with."""
        self.broken_off += self._turn is not None
        self._turn, self._next = None, 0
