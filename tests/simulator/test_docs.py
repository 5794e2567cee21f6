"""docs/simulator.md says what there is: its examples load, and no key and no option is missing in it."""

from __future__ import annotations

import argparse
import ast
import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from orchestrator.simulator import command
from orchestrator.simulator.endpoint.fault_types import AnyFault, Lognormal, Moment, Spread
from orchestrator.simulator.phone.order import PhoneOrder
from orchestrator.simulator.phone.order import Step as CallerStep
from orchestrator.simulator.scenario import (
    Ending,
    McpFault,
    McpOffer,
    McpServer,
    Scenario,
    Step,
    TranscriptError,
    Turn,
    parse_scenario,
    shipped_scenarios,
)

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# All that is set as code outside of the blocks, and the keys of the examples.
CODE = set(
    re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.M))))
)
EXAMPLES = "\n".join(text for language, text in BLOCKS if language in ("yaml", "json"))
KINDS = get_args(AnyFault)
TYPES = [
    Scenario,
    Turn,
    Step,
    Ending,
    TranscriptError,
    McpServer,
    McpOffer,
    McpFault,
    PhoneOrder,
    CallerStep,
    Lognormal,
    Spread,
]


def blocks(language: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == language]
    assert found
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_scenarios_load(text: str) -> None:
    assert parse_scenario(text).name


def test_the_request_for_a_call_is_one() -> None:
    order = msgspec.json.decode(blocks("json")[-1], type=PhoneOrder)
    assert len(order.says) == 4


def test_the_fault_on_the_command_line_is_one() -> None:
    bodies = re.findall(r"-d '(\{.*?\})'", PAGE)
    assert bodies
    for body in bodies:
        msgspec.json.decode(body, type=AnyFault)


@pytest.mark.parametrize("text", blocks("python"))
def test_programs_are_whole(text: str) -> None:
    ast.parse(text)


@pytest.mark.parametrize("text", blocks("json"))
def test_json_is_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("type_", [*TYPES, *KINDS], ids=lambda type_: type_.__name__)
def test_every_key_is_explained(type_: type[msgspec.Struct]) -> None:
    missing = {name for name in type_.__struct_encode_fields__ if name not in CODE and not re.search(rf"\b{name}\b", EXAMPLES)}
    assert missing == set()


def test_every_kind_of_fault_and_moment_is_explained() -> None:
    kinds = {str(kind.__struct_config__.tag) for kind in KINDS}
    assert kinds | set(get_args(Moment)) <= CODE


def test_every_option_is_explained() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert {name for name in options - {"--help"} if name not in PAGE} == set()


def test_every_option_that_is_named_exists() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= options


def test_every_shipped_scenario_is_named() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) >= set(shipped_scenarios())


def test_files_that_are_named_are_there() -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"`(orchestrator/[\w/]+\.py)`", PAGE)
    assert named
    assert all((root / name).is_file() for name in named)


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
