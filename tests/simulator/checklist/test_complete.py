"""Every line of the checklist has its tests, and what cannot be run here is named, with the reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.simulator.checklist.support import functions

HERE = Path(__file__).parent
LINES = range(1, 61)
NAME = re.compile(r"test_(\d\d)[a-z]?_[a-z0-9_]+")
MODULES = {
    "test_connection": range(1, 13),
    "test_session": range(13, 20),
    "test_items": range(20, 27),
    "test_input_audio": range(27, 35),
    "test_responses": range(35, 43),
    "test_response_control": range(43, 51),
    "test_context": range(51, 54),
    "test_calls": range(54, 58),
    "test_clients": range(58, 61),
}
# The parts of a line that no test here runs, and why. The rest of each of these lines is tested as any other.
NOT_RUN = {
    3: "LiveKit and Pipecat bring 330 and 420 MB of packages, hardly any of which have to do with the wire (av, grpcio, "
    "llvmlite, onnxruntime); their transports, aiohttp and websockets, are run by themselves.",
    6: "The 50 ms: no test asserts a time of this machine. On the session's own clock no time passes at all.",
    48: "The order of the members of an item: `type` comes first, where the live API begins with `id`. JSON has no such order.",
    57: "The approval's place among the events was never captured; what is tested is the documented course.",
    58: "Pipecat's own models, since they load the whole package; what they were found to insist on is asserted instead.",
    59: "LiveKit and Pipecat themselves, as for line 3; LiveKit's replay of a conversation is done by hand.",
}


def numbered() -> dict[str, Counter[int]]:
    """How many tests each line has, by module."""
    found: dict[str, Counter[int]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        if path != Path(__file__):
            names = [name for name in functions(path) if name.startswith("test_")]
            matches = [NAME.fullmatch(name) for name in names]
            assert None not in matches, f"{path.name} has a test without a number"
            found[path.stem] = Counter(int(match[1]) for match in matches if match is not None)
    return found


def test_every_line_has_a_test() -> None:
    assert sorted(sum(numbered().values(), Counter())) == list(LINES)


def test_every_test_stands_in_the_module_of_its_line() -> None:
    assert {module: sorted(lines) for module, lines in numbered().items()} == {
        module: list(lines) for module, lines in MODULES.items()
    }


def test_what_is_not_run_is_a_part_of_a_line_that_is() -> None:
    assert set(NOT_RUN) <= set(LINES)
    assert all(reason.endswith(".") for reason in NOT_RUN.values())
