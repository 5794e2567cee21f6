"""Makes a self-signed certificate for 127.0.0.1 in plain Python, so that the tests need neither a tool nor a stored key.

For tests only: the arithmetic is not hardened against anybody. Sources: RFC 5280 (certificate), RFC 5915 (key file), SEC 1
§4.1.3 (signature) with the curve P-256.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from pathlib import Path

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

Point = tuple[int, int] | None


def _add(first: Point, second: Point) -> Point:
    if first is None or second is None:
        return first or second
    (x1, y1), (x2, y2) = first, second
    if x1 == x2:
        if (y1 + y2) % _P == 0:
            return None
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, _P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, _P)
    x = (slope * slope - x1 - x2) % _P
    return x, (slope * (x1 - x) - y1) % _P


def _multiply(factor: int) -> tuple[int, int]:
    result: Point = None
    power: Point = _G
    while factor:
        if factor & 1:
            result = _add(result, power)
        power = _add(power, power)
        factor >>= 1
    assert result is not None
    return result


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(hexadecimal: str) -> bytes:
    return _der(0x06, bytes.fromhex(hexadecimal))


_PUBLIC_KEY = _oid("2a8648ce3d0201")
_P256 = _oid("2a8648ce3d030107")
_ECDSA_SHA256 = _der(0x30, _oid("2a8648ce3d040302"))


def _sign(private: int, message: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    nonce = secrets.randbelow(_N - 1) + 1
    r = _multiply(nonce)[0] % _N
    s = pow(nonce, -1, _N) * (digest + r * private) % _N
    return _der(0x30, _integer(r), _integer(s))


def _time(moment: datetime.datetime) -> bytes:
    return _der(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def _pem(label: str, data: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n"


def make_certificate(folder: Path) -> Path:
    """Write a new certificate and its key into one PEM file, valid for a day; return the file."""
    private = secrets.randbelow(_N - 1) + 1
    x, y = _multiply(private)
    public = _der(0x03, b"\x00\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    name = _der(0x30, _der(0x31, _der(0x30, _oid("550403"), _der(0x0C, b"transport test"))))
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    alternative_names = _der(0x30, _der(0x87, bytes([127, 0, 0, 1])), _der(0x82, b"localhost"))
    is_authority = _der(0x30, _der(0x01, b"\xff"))
    extensions = _der(
        0x30,
        _der(0x30, _oid("551d11"), _der(0x04, alternative_names)),
        _der(0x30, _oid("551d13"), _der(0x01, b"\xff"), _der(0x04, is_authority)),
    )
    content = _der(
        0x30,
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(100) + 1),
        _ECDSA_SHA256,
        name,
        _der(0x30, _time(now - hour), _time(now + 24 * hour)),
        name,
        _der(0x30, _der(0x30, _PUBLIC_KEY, _P256), public),
        _der(0xA3, extensions),
    )
    certificate = _der(0x30, content, _ECDSA_SHA256, _der(0x03, b"\x00" + _sign(private, content)))
    key = _der(0x30, _integer(1), _der(0x04, private.to_bytes(32, "big")), _der(0xA0, _P256), _der(0xA1, public))
    path = folder / "certificate.pem"
    path.write_text(_pem("CERTIFICATE", certificate) + _pem("EC PRIVATE KEY", key))
    return path
