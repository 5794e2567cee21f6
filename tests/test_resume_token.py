"""A token brings its caller back to one session, as often as need be, until it expires."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resume_token import ResumeTokens
from orchestrator.settings import Secret
from orchestrator.stream_token import StreamTokens

NOW = 1_800_000_000.25
HOUR = 3600.0
SESSION = "sess_0123456789abcdefghijk"


def tokens(secret: str = "a secret") -> ResumeTokens:
    return ResumeTokens(Secret(secret))


def test_a_token_is_good_for_its_session_until_it_expires_and_more_than_once() -> None:
    token = tokens().issue(SESSION, NOW, HOUR)
    for _ in range(2):
        assert tokens().verify(token, SESSION, NOW)
    assert tokens().verify(token, SESSION, NOW + HOUR - 1)
    assert not tokens().verify(token, SESSION, NOW + HOUR)
    assert not tokens().verify(token, SESSION + "1", NOW)
    assert not tokens().verify(token, "", NOW)
    assert not tokens("another secret").verify(token, SESSION, NOW)


def test_the_id_of_a_session_alone_is_worth_nothing() -> None:
    assert not tokens().verify(SESSION, SESSION, NOW)
    assert not tokens().verify("", SESSION, NOW)


def test_a_token_for_a_stream_is_none_for_a_session() -> None:
    other = StreamTokens(Secret("a secret")).issue(SESSION, NOW)
    assert not tokens().verify(other, SESSION, NOW)
    assert not tokens().verify("r1" + other[2:], SESSION, NOW)


@given(st.integers(0, 60), st.characters())
def test_a_changed_token_is_worth_nothing(place: int, char: str) -> None:
    token = tokens().issue(SESSION, NOW, HOUR)
    changed = token[:place] + char + token[place + 1 :]
    assert tokens().verify(changed, SESSION, NOW) is (changed == token)


@given(st.text(max_size=80))
def test_any_text_is_answered_with_no(text: str) -> None:
    assert not tokens().verify(text, text, NOW)
    assert not tokens().verify("r1." + text, SESSION, NOW)
    assert not tokens().verify("r1.9999999999." + text, SESSION, NOW)


def test_an_expiry_cannot_be_moved() -> None:
    version, expiry, digest = tokens().issue(SESSION, NOW, HOUR).split(".")
    assert not tokens().verify(f"{version}.{int(expiry) + 100}.{digest}", SESSION, NOW)
    assert not tokens().verify(f"{version}.0{expiry}.{digest}", SESSION, NOW)


def test_nothing_is_issued_or_accepted_without_a_secret() -> None:
    with pytest.raises(ValueError, match="token_secret"):
        tokens("").issue(SESSION, NOW, HOUR)
    assert not tokens("").verify(tokens().issue(SESSION, NOW, HOUR), SESSION, NOW)
