"""Keys and signatures; the carrier's own validator is the judge of the latter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from orchestrator.gateway.authentication import CarrierDoor, FrontDoor, signature_urls, twilio_signature
from orchestrator.http_server.request_head import HeadReader, RequestHead
from orchestrator.settings import Secret

TOKEN = "0123456789abcdef0123456789abcdef"
ORIGIN = "https://voice.example.com"
FORM = (
    ("AccountSid", "AC" + "0" * 31 + "1"),
    ("ApiVersion", "2010-04-01"),
    ("CallSid", "CA" + "0" * 31 + "2"),
    ("CallStatus", "ringing"),
    ("Direction", "inbound"),
    ("From", "+15005550006"),
    ("To", "+15005550001"),
)


def head(path: str, *headers: tuple[str, str], method: str = "GET") -> RequestHead:
    lines = [f"{method} {path} HTTP/1.1", "Host: evil.example", *(f"{name}: {value}" for name, value in headers), "", ""]
    result = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(result, RequestHead)
    return result


class TestFrontDoor:
    door = FrontDoor((Secret("first-key"), Secret("second-key")))

    @pytest.mark.parametrize("key", ["first-key", "second-key"])
    def test_each_configured_key_opens(self, key: str) -> None:
        assert self.door.check(head("/", ("Authorization", f"Bearer {key}"))) is None
        assert self.door.check(head("/", ("authorization", f"bearer   {key}"))) is None

    def test_a_key_may_come_in_a_subprotocol_as_browsers_must_send_it(self) -> None:
        protocols = "realtime, openai-insecure-api-key.second-key, openai-beta.realtime-v1"
        assert self.door.check(head("/", ("Sec-WebSocket-Protocol", protocols))) is None

    @pytest.mark.parametrize(
        "header",
        [
            ("Authorization", "Bearer wrong"),
            ("Authorization", "Bearer "),
            ("Authorization", "Bearer"),
            ("Authorization", "Basic first-key"),
            ("Authorization", "first-key"),
            ("Authorization", "Bearer first-key second-key"),
            ("Authorization", "Bearer \xe4\xf6"),
            ("Sec-WebSocket-Protocol", "realtime"),
            ("Sec-WebSocket-Protocol", "openai-insecure-api-key."),
            ("Sec-WebSocket-Protocol", "first-key"),
            ("X-Other", "first-key"),
        ],
    )
    def test_anything_else_is_401_and_is_not_repeated(self, header: tuple[str, str]) -> None:
        refusal = self.door.check(head("/", header))
        assert refusal is not None
        assert (refusal.status, refusal.code) == (401, "invalid_api_key")
        assert ("WWW-Authenticate", "Bearer") in refusal.headers
        assert "first-key" not in refusal.message

    def test_an_empty_key_in_the_settings_opens_nothing(self) -> None:
        door = FrontDoor((Secret(""), Secret("key")))
        assert door.check(head("/", ("Authorization", "Bearer "))) is not None
        assert door.check(head("/", ("Sec-WebSocket-Protocol", "openai-insecure-api-key."))) is not None

    def test_without_keys_everybody_may_come_in_except_pages_from_elsewhere(self) -> None:
        door = FrontDoor(())
        assert door.is_open
        assert door.check(head("/")) is None
        assert door.check(head("/", ("Origin", "http://localhost:3000"))) is None
        assert door.check(head("/", ("Origin", "http://[::1]:3000"))) is None
        for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[x"):
            refusal = door.check(head("/", ("Origin", origin)))
            assert refusal is not None
            assert refusal.code == "origin_not_allowed"


class TestSignature:
    @pytest.mark.parametrize(
        ("token", "url", "form", "expected"),
        [
            (
                "12345",
                "https://mycompany.com/myapp.php?foo=1&bar=2",
                (
                    ("CallSid", "CA1234567890ABCDE"),
                    ("Caller", "+14158675309"),
                    ("Digits", "1234"),
                    ("From", "+14158675309"),
                    ("To", "+18005551212"),
                ),
                "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
            ),
            (
                "12345",
                "https://mycompany.com/myapp.php?foo=1&bar=2",
                (("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")),
                "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            ),
            (TOKEN, "wss://voice.example.com/twilio/media", (), "3Wv0T80qzAY3OCARW9y1gnUJZtE="),
            (TOKEN, "wss://voice.example.com/twilio/media/", (), "emydRDSHhLvuug6wCkjTHD/G0T0="),
            (TOKEN, "wss://voice.example.com:443/twilio/media", (), "njB9LrB2K0cXMSmpQuCSQVNwT7E="),
            (TOKEN, "https://voice.example.com/twilio/voice", FORM, "PXE0r6MVEjJXUJENLnLXlFP5SnA="),
        ],
    )
    def test_known_answers(self, token: str, url: str, form: tuple[tuple[str, str], ...], expected: str) -> None:
        assert twilio_signature(Secret(token), url, form) == expected

    @given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.text(max_size=8), max_size=5))
    def test_the_carriers_own_library_computes_the_same(self, form: dict[str, str]) -> None:
        if any("\ud800" <= char <= "\udfff" for text in form.values() for char in text):
            return
        theirs = RequestValidator(TOKEN).compute_signature("https://voice.example.com/twilio/voice", form)
        assert twilio_signature(Secret(TOKEN), "https://voice.example.com/twilio/voice", form.items()) == theirs

    def test_every_form_of_the_address_is_tried_once(self) -> None:
        assert set(signature_urls("wss://voice.example.com/base/twilio/media", "/twilio/media")) == {
            "wss://voice.example.com/base/twilio/media",
            "wss://voice.example.com/base/twilio/media/",
            "wss://voice.example.com:443/base/twilio/media",
            "wss://voice.example.com:443/base/twilio/media/",
        }
        assert "http://127.0.0.1/x" in signature_urls("http://127.0.0.1:8080/x", "/x")


class TestCarrierDoor:
    door = CarrierDoor(Secret(TOKEN), (ORIGIN,), open_without_token=False)

    @pytest.mark.parametrize(
        "signed",
        [
            "https://voice.example.com/twilio/voice",
            "https://voice.example.com/twilio/voice/",
            "https://voice.example.com:443/twilio/voice",
        ],
    )
    def test_a_form_signed_by_the_carrier_comes_in(self, signed: str) -> None:
        signature = RequestValidator(TOKEN).compute_signature(signed, dict(FORM))
        request = head("/twilio/voice", ("X-Twilio-Signature", signature), method="POST")
        assert self.door.check_form(request, FORM) is None

    @pytest.mark.parametrize(
        "signature",
        ["3Wv0T80qzAY3OCARW9y1gnUJZtE=", "emydRDSHhLvuug6wCkjTHD/G0T0=", "njB9LrB2K0cXMSmpQuCSQVNwT7E="],
    )
    def test_a_stream_signed_by_the_carrier_comes_in(self, signature: str) -> None:
        assert self.door.check_upgrade(head("/twilio/media", ("x-twilio-signature", signature))) is None

    def test_a_base_path_and_a_query_are_part_of_what_is_signed(self) -> None:
        door = CarrierDoor(Secret(TOKEN), ("https://voice.example.com/base",), open_without_token=False)
        signature = RequestValidator(TOKEN).compute_signature("https://voice.example.com/base/twilio/voice?a=1", dict(FORM))
        assert door.check_form(head("/twilio/voice?a=1", ("X-Twilio-Signature", signature)), FORM) is None
        assert door.check_form(head("/twilio/voice?a=2", ("X-Twilio-Signature", signature)), FORM) is not None

    @pytest.mark.parametrize("index", range(len(FORM)))
    def test_a_changed_field_is_refused(self, index: int) -> None:
        signature = RequestValidator(TOKEN).compute_signature("https://voice.example.com/twilio/voice", dict(FORM))
        changed = tuple((name, value + "x" if at == index else value) for at, (name, value) in enumerate(FORM))
        refusal = self.door.check_form(head("/twilio/voice", ("X-Twilio-Signature", signature)), changed)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, "bad_signature")

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/twilio/media",  # what Host says
            "https://voice.example.com/twilio/media",  # another scheme
            "wss://voice.example.com/twilio/other",
            "wss://voice.example.com:8443/twilio/media",
            "wss://voice.example.com/twilio/media?x=1",
        ],
    )
    def test_another_address_is_refused(self, url: str) -> None:
        signature = RequestValidator(TOKEN).compute_signature(url, {})
        assert self.door.check_upgrade(head("/twilio/media", ("X-Twilio-Signature", signature))) is not None

    @pytest.mark.parametrize("signature", ["", "x", "\xff\xfe", "3Wv0T80qzAY3OCARW9y1gnUJZtE"])
    def test_nonsense_is_refused(self, signature: str) -> None:
        assert self.door.check_upgrade(head("/twilio/media", ("X-Twilio-Signature", signature))) is not None
        assert self.door.check_upgrade(head("/twilio/media")) is not None

    def test_without_a_token_nobody_comes_in_unless_the_port_is_loopback(self) -> None:
        request = head("/twilio/media")
        closed = CarrierDoor(Secret(), (ORIGIN,), open_without_token=False).check_upgrade(request)
        assert closed is not None
        assert closed.code == "carrier_not_configured"
        assert CarrierDoor(Secret(), (ORIGIN,), open_without_token=True).check_upgrade(request) is None
