"""A token opens one stream of one call for a short time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import Secret, Settings
from orchestrator.stream_token import LIFETIME, StreamTokens, with_token_secret

NOW = 1_800_000_000.25
CALL = "CA" + "0" * 32


def tokens(secret: str = "a secret") -> StreamTokens:
    return StreamTokens(Secret(secret))


def test_a_token_is_good_for_its_call_until_it_expires() -> None:
    token = tokens().issue(CALL, NOW)
    assert tokens().verify_stream_token(token, CALL, NOW)
    assert tokens().verify_stream_token(token, CALL, NOW + LIFETIME - 1)
    assert not tokens().verify_stream_token(token, CALL, NOW + LIFETIME)
    assert not tokens().verify_stream_token(token, CALL + "1", NOW)
    assert not tokens().verify_stream_token(token, "", NOW)
    assert not tokens("another secret").verify_stream_token(token, CALL, NOW)


@given(st.integers(0, 60), st.characters())
def test_a_changed_token_is_worth_nothing(place: int, char: str) -> None:
    token = tokens().issue(CALL, NOW)
    changed = token[:place] + char + token[place + 1 :]
    assert tokens().verify_stream_token(changed, CALL, NOW) is (changed == token)


@given(st.text(max_size=80))
def test_any_text_is_answered_with_no(text: str) -> None:
    assert not tokens().verify_stream_token(text, text, NOW)
    assert not tokens().verify_stream_token("v1." + text, CALL, NOW)
    assert not tokens().verify_stream_token("v1.9999999999." + text, CALL, NOW)


def test_an_expiry_cannot_be_moved() -> None:
    version, expiry, digest = tokens().issue(CALL, NOW).split(".")
    assert not tokens().verify_stream_token(f"{version}.{int(expiry) + 100}.{digest}", CALL, NOW)
    assert not tokens().verify_stream_token(f"{version}.0{expiry}.{digest}", CALL, NOW)


def test_a_token_is_redeemed_once() -> None:
    ours = tokens()
    token, other = ours.issue(CALL, NOW), ours.issue(CALL + "1", NOW)
    assert ours.redeem(token, CALL, NOW)
    assert not ours.redeem(token, CALL, NOW)
    assert not ours.redeem(other, CALL, NOW)
    assert ours.redeem(other, CALL + "1", NOW + 1)
    assert not ours.redeem(token, CALL, NOW + 10 * LIFETIME)


def test_nothing_is_issued_or_accepted_without_a_secret() -> None:
    with pytest.raises(ValueError, match="token_secret"):
        tokens("").issue(CALL, NOW)
    assert not tokens("").verify_stream_token(tokens().issue(CALL, NOW), CALL, NOW)


def test_a_missing_secret_is_made_once_for_all_actors() -> None:
    settings = with_token_secret(Settings())
    assert settings.token_secret
    assert with_token_secret(settings) is settings
    assert with_token_secret(Settings()).token_secret != settings.token_secret
    assert Settings.from_json(settings.to_json()).token_secret == settings.token_secret
