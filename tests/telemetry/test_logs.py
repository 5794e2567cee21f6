"""Lines are JSON, and no secret and nothing that was said gets into one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from orchestrator.errors import EndReason, SettingsError
from orchestrator.settings import Secret, Settings
from orchestrator.telemetry.logs import bind, configure, get_logger

at_import = get_logger()


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure("info", stream)
    yield stream
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_event_the_bound_fields_the_level_and_the_time(stream: io.StringIO) -> None:
    bind(session_id="sess_1").warning("call_ended", reason=EndReason("hangup", by="caller"), seconds=1.5)
    (line,) = lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {
        "event": "call_ended",
        "level": "warning",
        "session_id": "sess_1",
        "seconds": 1.5,
        "reason": {"code": "hangup", "text": "", "cause": None, "by": "caller"},
    }


def test_a_logger_made_at_import_follows_the_configuration(stream: io.StringIO) -> None:
    at_import.info("one")
    other = io.StringIO()
    configure("error", other)
    at_import.info("two")
    at_import.error("three")
    assert [line["event"] for line in lines(stream)] == ["one"]
    assert [line["event"] for line in lines(other)] == ["three"]


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "api_key",
        "api-key",
        "openai_api_key",
        "token",
        "stream_token",
        "secret",
        "X-Twilio-Signature",
        "password",
        "cookie",
    ],
)
def test_values_under_telling_keys_are_withheld_at_any_depth(stream: io.StringIO, key: str) -> None:
    get_logger().info("x", **{key: "hidden-1"}, headers={key: "hidden-2"}, many=[{"deep": {key: b"hidden-3"}}])
    assert "hidden" not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") == 3


def test_settings_can_be_logged(stream: io.StringIO) -> None:
    settings = Settings(
        front_door_keys=(Secret("hidden-1"),), twilio_auth_token=Secret("hidden-2"), model_api_key=Secret("hidden-3")
    )
    get_logger().info("started", settings=settings, alone=Secret("hidden-4"))
    assert "hidden" not in stream.getvalue()
    assert lines(stream)[0]["settings"]["port"] == settings.port


def test_secrets_inside_texts_are_cut_out(stream: io.StringIO) -> None:
    text = "sent 'Authorization: Bearer hidden1', openai-insecure-api-key.hidden2 and sk-hidden3"
    get_logger().info("x", error=text, raised=ValueError(text))
    try:
        int(text)  # its error quotes what it was given
    except ValueError:
        get_logger().exception("y")
    assert "hidden" not in stream.getvalue()
    assert "Traceback" in lines(stream)[1]["exception"]


def test_what_was_said_is_withheld_and_audio_is_only_measured(stream: io.StringIO) -> None:
    get_logger().info("x", transcript="hidden", delta="hidden", arguments="hidden", frame=b"hidden", audio="hidden")
    assert "hidden" not in stream.getvalue()
    assert lines(stream)[0]["frame"] == "[6 bytes]"


def test_numbers_of_tokens_are_no_secret(stream: io.StringIO) -> None:
    get_logger().info("x", input_tokens=12, tokens={"cached": 3})
    assert lines(stream)[0]["input_tokens"] == 12


def test_values_that_json_does_not_know_become_text(stream: io.StringIO) -> None:
    loop: list[Any] = []
    loop.append(loop)
    get_logger().info("x", a={1, 2}, b=object, c=loop, d=1 + 2j, e="x" * 10_000, f=float("inf"))
    (line,) = lines(stream)
    assert sorted(line["a"]) == [1, 2]
    assert len(line["e"]) < 3000


def test_a_stream_that_is_gone_hurts_nobody() -> None:
    stream = io.StringIO()
    configure("info", stream)
    stream.close()
    get_logger().info("x")
    structlog.reset_defaults()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(SettingsError, match="loud"):
        configure("loud")
