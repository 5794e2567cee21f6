"""Who is let in: the parts of the decision that need no socket. The table of refusals is in `test_server`."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from orchestrator.simulator.endpoint.admission import AccessRules, Admitted, Turned, admit, path_of

PATH = "/v1/realtime?model=gpt-realtime"


def request(path: str = PATH, *headers: tuple[str, str]) -> Request:
    return Request(path, Headers(headers))


def code(decision: Admitted | Turned) -> str | None:
    assert isinstance(decision, Turned)
    return decision.code


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer sk-1"),
        ("authorization", "bearer  sk-1 "),
        ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.sk-1, openai-project.p"),
    ],
)
def test_a_key_is_found_in_the_header_or_among_the_subprotocols(header: tuple[str, str]) -> None:
    rules = AccessRules(keys=frozenset({"sk-1"}))
    assert admit(request(PATH, header), rules) == Admitted("gpt-realtime")


@pytest.mark.parametrize("header", [("Authorization", "Bearer "), ("Authorization", "Basic abc"), ("X-Key", "sk-1")])
def test_what_is_no_key_is_none(header: tuple[str, str]) -> None:
    assert admit(request(PATH, header), AccessRules()) == Turned(None, "Missing bearer or basic authentication in header", 3000)


@pytest.mark.parametrize("key", ["short", "sk-a-very-long-secret-key-1234"])
def test_a_wrong_key_is_masked_in_the_answer(key: str) -> None:
    decision = admit(request(PATH, ("Authorization", f"Bearer {key}")), AccessRules(keys=frozenset({"right"})))
    assert isinstance(decision, Turned)
    assert key not in decision.message
    assert "********" in decision.message


def test_the_beta_header_is_complained_about_first() -> None:
    assert code(admit(request(PATH, ("OpenAI-Beta", "realtime=v1")), AccessRules())) == "beta_api_shape_disabled"


@pytest.mark.parametrize("model", ["gpt-realtime", "gpt-realtime-2.1-mini", "gpt-4o-realtime-preview", "gpt-audio"])
def test_the_usual_models_are_known(model: str) -> None:
    path = f"/v1/realtime/?other=1&model={model}"
    assert admit(request(path, ("Authorization", "Bearer x")), AccessRules()) == Admitted(model)


def test_a_close_reason_fits_into_a_close_frame() -> None:
    path = "/v1/realtime?model=" + "m" * 5000
    decision = admit(request(path, ("Authorization", "Bearer x")), AccessRules())
    assert isinstance(decision, Turned)
    assert len(decision.close_reason) <= 123
    assert len(decision.message) < 200


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime/", "/v1/realtime?x=/y", "/v1/realtime/?model=a"])
def test_the_path_is_what_is_left_without_query_and_slash(path: str) -> None:
    assert path_of(request(path)) == "/v1/realtime"
