"""How a word that no dictionary has is pronounced: espeak-ng's phonemes in the letters of the CMU dictionary (ARPAbet).

Names of people and products are what a scenario is full of and a dictionary is not.
"""

from __future__ import annotations

import re

from orchestrator.simulator.speech import phonemes

__all__ = ["pronounce"]

# The mnemonics of espeak-ng's American English. Marks of stress and variant ("#", "2", "-") are taken off beforehand.
_ARPABET = {
    "0": "AA",
    "3": "ER",
    "3:": "ER",
    "?": "T",
    "@": "AH",
    "@L": "AH L",
    "A:": "AA",
    "A@": "AA R",
    "A~": "AA N",
    "D": "DH",
    "E": "EH",
    "I": "IH",
    "N": "NG",
    "O": "AO",
    "O:": "AO",
    "O@": "AO R",
    "OI": "OY",
    "S": "SH",
    "T": "TH",
    "U": "UH",
    "U@": "UH R",
    "V": "AH",
    "Z": "ZH",
    "a": "AE",
    "aI": "AY",
    "aI3": "AY ER",
    "aI@": "AY AH",
    "aU": "AW",
    "aa": "AE",
    "b": "B",
    "d": "D",
    "dZ": "JH",
    "e@": "EH R",
    "eI": "EY",
    "f": "F",
    "g": "G",
    "h": "HH",
    "i": "IY",
    "i3": "IY ER",
    "i:": "IY",
    "i@": "IY AH",
    "i@3": "IH R",
    "j": "Y",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "o@": "AO R",
    "oU": "OW",
    "p": "P",
    "r": "R",
    "s": "S",
    "t": "T",
    "tS": "CH",
    "u:": "UW",
    "v": "V",
    "w": "W",
    "x": "K",
    "z": "Z",
}
_MARKS = re.compile(r"[',%=|;#~-]|(?<=[A-Za-z])2")
_ANY_VOWEL = "AH"


def pronounce(word: str) -> str:
    """The phones of an English word, separated by spaces. Blocks shortly. Raises UserError without espeak-ng."""
    found = (_MARKS.sub("", mnemonic).strip() for mnemonic in phonemes(word, "en-us"))
    phones = [_ARPABET.get(mnemonic, _ANY_VOWEL) for mnemonic in found if mnemonic]
    return " ".join(phones or [_ANY_VOWEL])
