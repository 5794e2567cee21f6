"""Who is let in: the parts of the decision that need no socket. The table of refusals is in `test_server`."""

from __future__ import annotations

import pytest

from orchestrator.http_server.request_head import HeadReader, RequestHead
from orchestrator.simulator.endpoint.admission import AccessRules, Admitted, ApiForm, Joined, Preset, Turned, admit
from orchestrator.wire.realtime import RealtimeSessionConfig

PATH = "/v1/realtime?model=gpt-realtime"


def request(path: str = PATH, *headers: tuple[str, str]) -> RequestHead:
    lines = [f"GET {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers), "", ""]
    head = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(head, RequestHead)
    return head


def code(decision: Admitted | Joined | Turned) -> str | None:
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
    assert admit(request(PATH, header), AccessRules()) == Turned(
        None, "Missing bearer or basic authentication in header", 3000, 401
    )


@pytest.mark.parametrize("key", ["short", "rather-short", "sk-a-very-long-secret-key-1234"])
def test_a_wrong_key_is_masked_in_the_answer(key: str) -> None:
    decision = admit(request(PATH, ("Authorization", f"Bearer {key}")), AccessRules(keys=frozenset({"right"})))
    assert isinstance(decision, Turned)
    assert key not in decision.message
    assert "********" in decision.message
    shown = decision.message.split()[4].strip(".").replace("*", "")
    assert len(shown) <= len(key) / 2


def test_the_text_form_of_the_rules_shows_no_key() -> None:
    assert "secret" not in repr(AccessRules(keys=frozenset({"sk-secret"})))


def test_the_beta_header_is_complained_about_first() -> None:
    for value in ("realtime=v1", "assistants=v2, realtime=v1"):
        assert code(admit(request(PATH, ("OpenAI-Beta", value)), AccessRules())) == "beta_api_shape_disabled"


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


# --- What else may be asked for ---------------------------------------------------------------------------------------

KEY = ("Authorization", "Bearer x")


def test_a_call_is_joined_without_a_model() -> None:
    assert admit(request("/v1/realtime?call_id=rtc_1", KEY), AccessRules()) == Joined("rtc_1")
    assert code(admit(request("/v1/realtime?call_id=", KEY), AccessRules())) == "missing_model"


def test_a_transcription_session_needs_no_model() -> None:
    assert admit(request("/v1/realtime?intent=transcription", KEY), AccessRules()) == Admitted("", "transcription")
    assert code(admit(request("/v1/realtime?intent=other", KEY), AccessRules())) == "missing_model"


def test_a_key_is_asked_for_in_every_case() -> None:
    for query in ("call_id=rtc_1", "intent=transcription", "model=gpt-realtime"):
        turned = admit(request(f"/v1/realtime?{query}"), AccessRules())
        assert isinstance(turned, Turned)
        assert (turned.code, turned.status) == (None, 401)


# --- Client secrets ---------------------------------------------------------------------------------------------------

EPHEMERAL = ("Authorization", "Bearer ek_1")


def test_a_client_secret_is_known_or_no_key_even_where_any_key_does() -> None:
    preset = Preset(model="gpt-realtime-mini")
    known = {"ek_1": preset}.get
    assert admit(request("/v1/realtime", EPHEMERAL), AccessRules(), known) == Admitted("gpt-realtime-mini")
    assert admit(request(PATH, EPHEMERAL), AccessRules(), known) == Admitted("gpt-realtime")
    for unknown in (None, {"ek_2": preset}.get):
        decision = admit(request(PATH, EPHEMERAL), AccessRules(), *([unknown] if unknown else []))
        assert code(decision) == "invalid_api_key"


def test_a_client_secret_decides_the_kind_of_the_session() -> None:
    known = {"ek_1": Preset(kind="transcription")}.get
    assert admit(request("/v1/realtime", EPHEMERAL), AccessRules(), known) == Admitted("", "transcription")
    session = RealtimeSessionConfig()
    known = {"ek_1": Preset("gpt-realtime", session=session)}.get
    for query, decided in (
        ("", Admitted("gpt-realtime", "realtime", session)),
        ("&model=gpt-realtime-mini", Admitted("gpt-realtime-mini", "realtime", session)),
    ):
        assert admit(request(f"/v1/realtime?intent=transcription{query}", EPHEMERAL), AccessRules(), known) == decided
    unknown_model = request("/v1/realtime?intent=transcription&model=llama", EPHEMERAL)
    assert code(admit(unknown_model, AccessRules(), known)) == "invalid_model"


# --- Azure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [("api-key", "right"), ("Authorization", "Bearer right")])
def test_in_azures_form_a_key_comes_in_either_header(header: tuple[str, str]) -> None:
    rules = AccessRules(keys=frozenset({"right"}), form=ApiForm.AZURE)
    assert admit(request("/openai/v1/realtime?model=gpt-realtime", header), rules) == Admitted("gpt-realtime")


def test_openais_form_does_not_know_the_header_of_azure() -> None:
    assert isinstance(admit(request(PATH, ("api-key", "right")), AccessRules()), Turned)


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("?model=gpt-realtime", ("x", "y"), 401),
        ("?model=gpt-realtime", ("api-key", "wrong"), 401),
        ("", ("api-key", "right"), 400),
        ("?model=llama", ("api-key", "right"), 404),
    ],
)
def test_a_refusal_has_a_status_for_where_http_says_it(path: str, header: tuple[str, str], status: int) -> None:
    rules = AccessRules(keys=frozenset({"right"}), form=ApiForm.AZURE)
    turned = admit(request(f"/openai/v1/realtime{path}", header), rules)
    assert isinstance(turned, Turned)
    refusal = turned.refusal()
    assert refusal.status == status
    assert "wrong" not in refusal.message
