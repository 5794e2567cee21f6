"""What stands in a call's page beside the caller's audio: what its next owner needs of the channel and of the model.

A page takes so many bytes and no more, and what was saved last would lie about the present. So where it is too much, the
model's part is left out: the next owner then tells the endpoint the program's own settings, and knows whose call it is.
"""

from __future__ import annotations

import msgspec

from orchestrator.errors import PageError
from orchestrator.realtime.carry_over import ModelMemory
from orchestrator.telemetry.logs import get_logger
from orchestrator.transports.session_page import SessionPage

__all__ = ["PageMemory"]

_NOTHING = msgspec.Raw(b"null")


class _Saved(msgspec.Struct, array_like=True):
    channel: msgspec.Raw
    model: ModelMemory | None = None


class _Found(msgspec.Struct, array_like=True):
    channel: msgspec.Raw = _NOTHING
    model: msgspec.Raw = _NOTHING


_encoder = msgspec.json.Encoder()
_log = get_logger()


class PageMemory:
    """The snapshot in one page. Neither method raises: without a memory a call is as safe as it was before."""

    def __init__(self, page: SessionPage, session_id: str) -> None:
        self._page = page
        self._session_id = session_id
        # Said once, since it would be said at every event.
        self._told = False

    def save(self, channel: bytes, model: ModelMemory | None) -> None:
        """Save both in place of what was saved last; `channel` is JSON, or empty."""
        known = msgspec.Raw(channel) if channel else _NOTHING
        try:
            self._page.save(_encoder.encode(_Saved(known, model)))
            return
        except PageError as error:
            self._tell(error.message)
        try:
            self._page.save(_encoder.encode(_Saved(known)))
        except PageError:
            self._page.save(b"")

    def find(self) -> tuple[bytes, ModelMemory | None]:
        """Return what a former owner has saved, as far as it can be read."""
        saved = self._page.saved
        try:
            found = msgspec.json.decode(saved, type=_Found) if saved else _Found()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("page_memory_refused", session_id=self._session_id, part="all", error=type(error).__name__)
            return b"", None
        channel = bytes(found.channel)
        try:
            model = msgspec.json.decode(found.model, type=ModelMemory | None)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("page_memory_refused", session_id=self._session_id, part="model", error=type(error).__name__)
            model = None
        return b"" if channel == b"null" else channel, model

    def _tell(self, detail: str) -> None:
        if not self._told:
            self._told = True
            _log.warning("page_not_saved", session_id=self._session_id, detail=detail)
