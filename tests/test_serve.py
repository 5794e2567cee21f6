"""What `orchestrator serve` makes of its flags."""

from __future__ import annotations

import argparse

import msgspec

from orchestrator import serve
from orchestrator.settings import Settings


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


def test_every_flag_is_a_setting() -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    options = vars(parse("a:b"))
    assert set(options) - fields == {"address", "drain_seconds"}


def test_a_flag_that_is_not_given_leaves_the_environment_alone() -> None:
    options = vars(parse("a:b", "--port", "0"))
    assert options["port"] == 0
    assert options["agent"] == "a:b"
    left = {name for name, value in options.items() if value is None}
    assert {"host", "model_url", "max_sessions", "address"} <= left


def test_no_secret_is_a_flag() -> None:
    assert not [name for name in vars(parse("a:b")) if "key" in name or "secret" in name or "token" in name]
