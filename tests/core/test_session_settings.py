"""Settings as the endpoint holds them."""

from __future__ import annotations

from orchestrator.core.session_settings import MAX_WAITING, SessionSettings

FIRST = {
    "type": "realtime",
    "instructions": "a",
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}},
        "output": {"voice": "ash"},
    },
}


def test_updates_are_merged_member_by_member_once_they_are_confirmed() -> None:
    settings = SessionSettings()
    settings.sent("1", FIRST)
    assert settings.confirmed == {}
    settings.confirm_oldest()
    settings.sent("2", {"type": "realtime", "audio": {"input": {"turn_detection": None}}})
    assert settings.confirmed == FIRST
    # For audio that is sent behind it the update holds already.
    assert not settings.rules.detects
    settings.confirm_oldest()
    assert settings.confirmed["audio"] == {
        "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
        "output": {"voice": "ash"},
    }
    assert settings.confirmed["instructions"] == "a"
    assert FIRST["audio"]["input"]["turn_detection"] == {"type": "server_vad"}  # type: ignore[index]


def test_a_refused_update_changes_nothing() -> None:
    settings = SessionSettings()
    settings.sent("1", FIRST)
    settings.sent("2", {"instructions": "b"})
    assert settings.refused("1")
    assert not settings.refused("1")
    assert not settings.refused(None)
    settings.confirm_oldest()
    assert settings.confirmed == {"instructions": "b"}


def test_the_rules_for_audio_follow() -> None:
    settings = SessionSettings()
    rules = settings.rules
    assert (rules.detects, rules.answers, rules.transcribes, rules.bytes_per_ms) == (True, True, False, 48.0)
    settings.sent("1", FIRST)
    settings.sent("2", {"audio": {"input": {"turn_detection": {"create_response": False}, "transcription": {"model": "m"}}}})
    rules = settings.rules
    assert (rules.detects, rules.answers, rules.transcribes, rules.bytes_per_ms) == (True, False, True, 8.0)


def test_an_endpoint_that_never_answers_does_not_make_us_grow() -> None:
    settings = SessionSettings()
    for number in range(MAX_WAITING + 10):
        settings.sent(str(number), {"n": number})
    assert len(settings.waiting) == MAX_WAITING
    assert settings.confirmed == {"n": 9}
