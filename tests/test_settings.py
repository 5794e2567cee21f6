"""Settings: from the environment, safe by default, and silent about secrets."""

import pytest

from orchestrator.errors import SettingsError
from orchestrator.settings import Secret, Settings, from_environment

KEYS = {"ORCHESTRATOR_FRONT_DOOR_KEYS": "key-one, key-two", "ORCHESTRATOR_TOKEN_SECRET": "token-secret"}


def test_the_environment_is_read_by_name_and_type() -> None:
    settings = from_environment({**KEYS, "ORCHESTRATOR_PORT": "9000", "ORCHESTRATOR_RESPONSE_TIMEOUT": "2.5"})
    assert (settings.port, settings.response_timeout) == (9000, 2.5)
    assert [key.reveal() for key in settings.front_door_keys] == ["key-one", "key-two"]


def test_flags_beat_the_environment_and_absent_flags_do_not() -> None:
    settings = from_environment({"ORCHESTRATOR_PORT": "9000", "ORCHESTRATOR_HOST": "::1"}, port=7, host=None)
    assert (settings.port, settings.host) == (7, "::1")


def test_the_usual_variable_gives_the_models_key_unless_ours_does() -> None:
    assert from_environment({"OPENAI_API_KEY": "a"}).model_api_key.reveal() == "a"
    both = {"OPENAI_API_KEY": "a", "ORCHESTRATOR_MODEL_API_KEY": "b"}
    assert from_environment(both).model_api_key.reveal() == "b"


def test_no_door_is_opened_to_the_world_without_keys() -> None:
    with pytest.raises(SettingsError, match="without authentication"):
        Settings(host="0.0.0.0")
    assert from_environment({**KEYS, "ORCHESTRATOR_HOST": "0.0.0.0"}).host == "0.0.0.0"


def test_signatures_need_the_address_that_the_carrier_calls() -> None:
    environ = {**KEYS, "ORCHESTRATOR_HOST": "0.0.0.0", "ORCHESTRATOR_TWILIO_AUTH_TOKEN": "t"}
    with pytest.raises(SettingsError, match="set public_url"):
        from_environment(environ)
    assert from_environment({**environ, "ORCHESTRATOR_PUBLIC_URL": "https://voice.example.com"}).public_url is not None


@pytest.mark.parametrize("name", ["max_sessions", "session_actors", "sessions_per_actor", "tool_actors"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        from_environment({}, **{name: 0})


def test_a_malformed_value_is_named_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="ORCHESTRATOR_PORT") as error:
        from_environment({"ORCHESTRATOR_PORT": "hunter2"})
    assert "hunter2" not in str(error.value)


def test_secrets_show_in_no_form_but_the_one_that_travels() -> None:
    settings = from_environment({**KEYS, "OPENAI_API_KEY": "sk-very-secret"})
    for text in (repr(settings), str(settings), f"{settings.model_api_key}"):
        assert "secret" not in text.replace("Secret(set)", "").replace("token_secret", "")
        assert "key-one" not in text
    assert Settings.from_json(settings.to_json()) == settings
    assert not Secret()


ENDPOINTS = '[{"name":"a","url":"wss://a.example/v1/realtime","key":"sk-one"},{"name":"b","url":"wss://b","kind":"azure","key_env":"B_KEY"}]'


def test_endpoints_of_the_model_come_from_the_environment_and_their_keys_stay_secret() -> None:
    settings = from_environment({"ORCHESTRATOR_MODEL_ENDPOINTS": ENDPOINTS, "B_KEY": "az-two"})
    assert [(found.name, found.kind, found.key.reveal()) for found in settings.endpoints] == [
        ("a", "openai", "sk-one"),
        ("b", "azure", "az-two"),
    ]
    assert "sk-one" not in repr(settings)
    assert Settings.from_json(settings.to_json()) == settings


def test_without_endpoints_there_is_the_one_that_the_other_settings_describe() -> None:
    settings = from_environment({"OPENAI_API_KEY": "k", "ORCHESTRATOR_MODEL_URL": "ws://m/v1/realtime"})
    (endpoint,) = settings.endpoints
    assert (endpoint.url, endpoint.key.reveal()) == ("ws://m/v1/realtime", "k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sk-secret", "not a JSON list"),
        ('[{"name":"a","url":"https://a"}]', "ws://"),
        ('[{"name":"a","url":"ws://a"},{"name":"a","url":"ws://b"}]', "different"),
        ('[{"name":"a","url":"ws://a","weight":0}]', "weight"),
        ('[{"name":"a","url":"ws://a","key_env":"NOT_SET"}]', "NOT_SET"),
    ],
)
def test_endpoints_that_cannot_work_are_refused_without_repeating_them(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        from_environment({"ORCHESTRATOR_MODEL_ENDPOINTS": text})
    assert "sk-secret" not in str(error.value)


def test_a_renewal_must_leave_time_before_the_greatest_age() -> None:
    with pytest.raises(SettingsError, match="model_renew_after"):
        Settings(model_max_age=60.0)
    assert Settings(model_max_age=60.0, model_renew_after=50.0).model_max_age == 60.0
