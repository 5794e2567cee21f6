"""What the gateway answers to the carrier's question what to do with a call."""

from __future__ import annotations

from xml.etree import ElementTree as ET

__all__ = ["CONTENT_TYPE", "connect_stream", "reject_busy"]

CONTENT_TYPE = "text/xml; charset=utf-8"


def connect_stream(url: str, token: str, *, say: str = "") -> bytes:
    """Connect the call to a media stream; `url` is ws(s), without query, since the carrier drops one.

    The carrier speaks the text in `say` before it connects, in a voice of its own.
    """
    response = ET.Element("Response")
    if say:
        ET.SubElement(response, "Say").text = say
    stream = ET.SubElement(ET.SubElement(response, "Connect"), "Stream", url=url)
    ET.SubElement(stream, "Parameter", name="token", value=token)
    return _document(response)


def reject_busy() -> bytes:
    """Turn the call away with a busy signal; the carrier does not charge a call that is never answered."""
    response = ET.Element("Response")
    ET.SubElement(response, "Reject", reason="busy")
    return _document(response)


def _document(root: ET.Element) -> bytes:
    text: str = ET.tostring(root, encoding="unicode")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()
