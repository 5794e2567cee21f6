"""Webhooks: who is believed, and what is read. The official client is the judge, in both directions."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI

from orchestrator.errors import UserError, WebhookSignatureError, WireError
from orchestrator.realtime.webhooks import TOLERANCE, IncomingCall, OtherEvent, SeenWebhooks, SipHeader, sign, unwrap

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NOW = 1_750_000_000
BODY = (
    b'{"object":"event","id":"evt_1","type":"realtime.call.incoming","created_at":1750000000,"data":{"call_id":"rtc_1",'
    b'"sip_headers":[{"name":"From","value":"sip:+15005550006@example.com"}]}}'
)
JUDGE = OpenAI(api_key="unused", webhook_secret=SECRET)

# What an HTTP header can hold, and what JSON can.
IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
SECRETS = st.binary(min_size=1, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()) | IDS.filter(
    lambda text: not text.startswith("whsec_")
)
EVENTS = st.fixed_dictionaries({"type": st.text(max_size=30), "id": IDS, "data": JSON_VALUES})


def signed(
    body: bytes = BODY, *, webhook_id: str = "wh_1", at: int = NOW, secret: str = SECRET, **changes: str
) -> dict[str, str]:
    """Headers as the provider sends them."""
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(at), "webhook-signature": sign(body, webhook_id, at, secret)}
    return headers | {name.replace("_", "-"): value for name, value in changes.items()}


def refusal(body: bytes, headers: dict[str, str], secret: str = SECRET, now: float = NOW) -> str:
    with pytest.raises(WebhookSignatureError) as caught:
        unwrap(body, headers, secret, now)
    assert secret not in str(caught.value)
    return caught.value.reason


def theirs(body: bytes, headers: dict[str, str], secret: str = SECRET) -> bool:
    """Does the official client believe it?"""
    try:
        JUDGE.webhooks.verify_signature(body, headers, secret=secret)
    except InvalidWebhookSignatureError:
        return False
    return True


def ours(body: bytes, headers: dict[str, str], secret: str = SECRET) -> bool:
    try:
        unwrap(body, headers, secret)
    except WebhookSignatureError:
        return False
    return True


# --- Signatures -------------------------------------------------------------------------------------------------------


def test_known_signatures() -> None:
    assert sign(BODY, "wh_1", NOW, SECRET) == "v1,2K2DAC30wpdhthb70uTw8LusdiskS0bBGrFhGJfXmy0="
    other = (
        b'{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, '
        b'"type": "response.completed", "data": {"id": "resp_123"}}'
    )
    secret = "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="
    signature = sign(other, "wh_685c059ae39c8190af8c71ed1022a24d", 1750861210, secret)
    assert signature == "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY="


@given(EVENTS, IDS, SECRETS, st.integers(-290, 290))
def test_what_we_sign_the_official_client_unwraps_and_so_do_we(event: dict[str, Any], name: str, secret: str, off: int) -> None:
    body = json.dumps(event).encode()
    headers = signed(body, webhook_id=name, at=int(time.time()) + off, secret=secret)
    JUDGE.webhooks.unwrap(body, headers, secret=secret)
    assert ours(body, headers, secret)


@given(
    at=st.sampled_from([-100_000, -310, -290, 0, 290, 310, 100_000]),
    body=st.sampled_from([BODY, BODY + b" ", BODY[:-1], b""]),
    webhook_id=st.sampled_from(["wh_1", "wh_2", "WH_1"]),
    secret=st.sampled_from([SECRET, SECRET.removeprefix("whsec_"), "whsec_AAAA"]),
    before=st.lists(st.sampled_from(["v1,", "v1,AAAA", "v1a,AAAA", "v2,AAAA", "garbage", "v1,v1,"]), max_size=3),
    after=st.sampled_from(["", " ", "  v1,BBBB", " v2"]),
    damage=st.sampled_from(["", "=", "A", "\t"]),
)
def test_the_verdict_is_that_of_the_official_client(
    at: int, body: bytes, webhook_id: str, secret: str, before: list[str], after: str, damage: str
) -> None:
    sent_at = int(time.time()) + at
    genuine = sign(BODY, "wh_1", sent_at, SECRET)
    signature = " ".join([*before, genuine + damage]) + after
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(sent_at), "webhook-signature": signature}
    verdict = theirs(body, headers, secret)
    assert ours(body, headers, secret) == verdict
    same = (body, webhook_id, secret) == (BODY, "wh_1", SECRET)
    assert verdict == (same and abs(at) < TOLERANCE and damage in ("", "\t"))


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_not_a_byte_of_the_body_may_change(position: int, difference: int) -> None:
    changed = bytearray(BODY)
    changed[position] ^= difference
    assert refusal(bytes(changed), signed()) == "signature"


def test_a_signature_of_another_scheme_is_none_though_it_were_the_same() -> None:
    bare = signed()["webhook-signature"].removeprefix("v1,")
    for scheme in ("v2,", "v1a,", "V1,", ""):
        assert refusal(BODY, signed(webhook_signature=scheme + bare)) == "signature"


def test_one_of_several_signatures_is_enough() -> None:
    signature = f"v1,AAAA {signed()['webhook-signature']} v1,BBBB"
    assert isinstance(unwrap(BODY, signed(webhook_signature=signature), SECRET, NOW), IncomingCall)


@pytest.mark.parametrize(
    ("now", "reason"),
    [(NOW + 300.9, None), (NOW + 301, "too_old"), (NOW - 300, None), (NOW - 301, "too_new"), (0, "too_new")],
)
def test_the_clocks_may_be_five_minutes_apart(now: float, reason: str | None) -> None:
    if reason is None:
        assert unwrap(BODY, signed(), SECRET, now)
    else:
        assert refusal(BODY, signed(), now=now) == reason


@pytest.mark.parametrize("text", ["yesterday", "-5", "1750000000.0", " 1750000000", "01750000000", "1_750_000_000", "9" * 5000])
def test_a_timestamp_is_written_in_one_way(text: str) -> None:
    assert refusal(BODY, signed(webhook_timestamp=text)) == "timestamp"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_every_header_is_needed_in_whatever_case(name: str) -> None:
    headers = signed()
    assert unwrap(BODY, {key.title(): value for key, value in headers.items()}, SECRET, NOW)
    assert refusal(BODY, headers | {name: ""}) == "missing_header"
    del headers[name]
    assert refusal(BODY, headers) == "missing_header"


def test_a_signature_of_odd_characters_is_wrong_and_no_accident() -> None:
    assert refusal(BODY, signed(webhook_signature="v1,\u00e9\udcff")) == "signature"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", "whsec_abc"])
def test_without_a_proper_secret_nothing_is_verified(secret: str) -> None:
    with pytest.raises(UserError) as caught:
        unwrap(BODY, signed(), secret, NOW)
    assert not secret or secret not in caught.value.message


# --- Contents ---------------------------------------------------------------------------------------------------------


def test_an_incoming_call_is_read_as_the_official_client_reads_it() -> None:
    headers = [{"name": "From", "value": "sip:a@b"}, {"name": "X-Tag", "value": "1"}, {"name": "x-tag", "value": "2"}]
    data = {"call_id": "rtc_Ab/1", "sip_headers": headers, "sip_media_security": "srtp", "new": [1]}
    event = {"type": "realtime.call.incoming", "id": "evt_9", "created_at": NOW, "object": "event", "data": data}
    body = json.dumps(event).encode()
    at = int(time.time())
    official: Any = JUDGE.webhooks.unwrap(body, signed(body, at=at))
    call = unwrap(body, signed(body, at=at), SECRET)
    assert isinstance(call, IncomingCall)
    assert (call.call_id, call.event_id, call.created_at) == (official.data.call_id, official.id, official.created_at)
    assert call.sip_headers == tuple(SipHeader(header.name, header.value) for header in official.data.sip_headers)
    assert call.sip_media_security == official.data.sip_media_security
    assert call.webhook_id == "wh_1"
    assert (call.sip_header("X-TAG"), call.sip_header("from"), call.sip_header("To")) == ("1", "sip:a@b", None)


@pytest.mark.parametrize("name", ["live.transport.incoming", "response.completed", "invented.later", ""])
def test_other_events_are_named_and_no_more(name: str) -> None:
    body = json.dumps({"type": name, "id": "evt_2", "data": {"call_id": "rtc_1"}}).encode()
    assert unwrap(body, signed(body), SECRET, NOW) == OtherEvent(webhook_id="wh_1", event_id="evt_2", type=name)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"type":' * 100_000, "invalid_type"),
        (b'{"type":"x","data":"\xff"}', "invalid_json"),
        (b"[]", "invalid_event"),
        (b"{}", "missing_required_parameter"),
        (b'{"type":7}', "invalid_type"),
        (b'{"type":"realtime.call.incoming"}', "missing_required_parameter"),
        (b'{"type":"realtime.call.incoming","data":{}}', "missing_required_parameter"),
        (b'{"type":"realtime.call.incoming","data":{"call_id":""}}', "missing_required_parameter"),
        (b'{"type":"realtime.call.incoming","data":{"call_id":"a","sip_headers":[{}]}}', "missing_required_parameter"),
    ],
)
def test_a_genuine_body_that_is_no_event_is_an_error_of_its_own(body: bytes, code: str) -> None:
    with pytest.raises(WireError) as caught:
        unwrap(body, signed(body), SECRET, NOW)
    assert caught.value.wire_code == code


# --- Repetitions ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=60))
def test_an_event_is_new_once_while_it_is_among_the_last_ones_and_no_more_are_kept(numbers: list[int]) -> None:
    seen, kept = SeenWebhooks(limit=5), list[int]()
    for number in numbers:
        event = OtherEvent(webhook_id=f"wh_{number}", event_id="", type="")
        assert seen.is_new(event) == (number not in kept)
        kept = (kept if number in kept else [*kept, number])[-5:]
        assert len(seen) == len(kept)
