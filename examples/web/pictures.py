"""Pictures on their way from the page, put together chunk by chunk within limits. Pure: no socket, no session."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

from examples.web.protocol import BadMessage

__all__ = ["DEFAULT_TEXT", "MAX_OPEN", "MAX_PICTURES", "MAX_SIZE", "Picture", "Uploads"]

# Characters of a data URL. The page scales pictures down to some hundred thousand.
MAX_SIZE = 8 * 1024 * 1024
# Pictures that come in chunks at the same time, and pictures in one conversation: the model remembers, and charges for, each.
MAX_OPEN = 4
MAX_PICTURES = 20
DEFAULT_TEXT = "Please describe this image."

_DATA_URL = re.compile(r"data:image/(png|jpeg|gif|webp);base64,")
_BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}


@dataclass(frozen=True)
class Picture:
    """A complete picture, and what the user says about it."""

    data_url: str = field(repr=False)
    text: str


@dataclass
class _Open:
    text: str | None
    chunks: list[str] = field(default_factory=list, repr=False)
    size: int = 0


class Uploads:
    """The pictures of one session. Each method raises BadMessage for what cannot be; one that breaks a rule is forgotten."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._accepted = 0

    def start(self, picture_id: str, text: str | None) -> None:
        """Begin a picture; one of the same id begins anew."""
        self._refuse_one_more("image_start")
        if picture_id not in self._open and len(self._open) >= MAX_OPEN:
            raise BadMessage(f"{MAX_OPEN} images are on their way already: end one of them first", "image_start")
        self._open[picture_id] = _Open(text)

    def chunk(self, picture_id: str, chunk: str) -> int:
        """Add a chunk, and return how many there are."""
        upload = self._open.get(picture_id)
        if upload is None:
            raise BadMessage("no image of this id has been started", "image_chunk")
        upload.size += len(chunk)
        if upload.size > MAX_SIZE:
            del self._open[picture_id]
            raise BadMessage(f"the image is larger than {MAX_SIZE} characters: scale it down", "image_chunk")
        # An empty chunk costs a place in the list and nothing else, so there could be any number of them.
        if chunk:
            upload.chunks.append(chunk)
        return len(upload.chunks)

    def end(self, picture_id: str) -> Picture:
        """Put a picture together."""
        upload = self._open.pop(picture_id, None)
        if upload is None:
            raise BadMessage("no image of this id has been started", "image_end")
        return self._accept("".join(upload.chunks), upload.text, "image_end")

    def whole(self, data_url: str, text: str | None) -> Picture:
        """Take a picture that came in one piece."""
        return self._accept(data_url, text, "image")

    def _accept(self, data_url: str, text: str | None, about: str) -> Picture:
        self._refuse_one_more(about)
        if len(data_url) > MAX_SIZE:
            raise BadMessage(f"the image is larger than {MAX_SIZE} characters: scale it down", about)
        _check(data_url, about)
        self._accepted += 1
        return Picture(data_url, text or DEFAULT_TEXT)

    def _refuse_one_more(self, about: str) -> None:
        if self._accepted >= MAX_PICTURES:
            raise BadMessage(f"a conversation holds {MAX_PICTURES} images: start a new one", about)


def _check(data_url: str, about: str) -> None:
    """Raise BadMessage for what is no picture: the model would say so too, but only after it was sent all of it."""
    if not data_url:
        raise BadMessage("the image is empty", about)
    head = _DATA_URL.match(data_url)
    if head is None:
        raise BadMessage("an image is a data URL of PNG, JPEG, GIF or WebP in base64", about)
    try:
        content = binascii.a2b_base64(data_url[head.end() :], strict_mode=True)
    except ValueError:
        raise BadMessage("the image's base64 is broken", about) from None
    if not content.startswith(_BEGINNINGS[head[1]]):
        raise BadMessage(f"the image is not what its type says, {head[1]}", about)
