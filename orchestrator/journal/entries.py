"""The entries of a call's journal: facts in the order in which they became true.

An entry is one fact about one call. Its envelope says whose it is (`session_id`, `seq`), who wrote it (`epoch`, `writer`) and
when; its body is JSON with a `kind`. Bodies are only ever extended by members with defaults. A change that older code could
not read, or that gives an old member a new meaning, raises `FORMAT` and adds a step to `_UPGRADES`, so that every journal
ever written can be replayed; recorded ones of each format stay in the test tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

import msgspec

from orchestrator.errors import EndReason, JournalFormatError

__all__ = [
    "FORMAT",
    "AgentChanged",
    "ApprovalAsked",
    "ApprovalGiven",
    "Body",
    "CallEnded",
    "CallStarted",
    "ContextChanged",
    "Entry",
    "ItemDeleted",
    "ItemWritten",
    "LegChanged",
    "ResponseEnded",
    "ResponseStarted",
    "Snapshot",
    "TakenOver",
    "ToolAnswered",
    "ToolRequested",
    "ToolStarted",
    "UnknownBody",
    "UsageCounted",
    "decode_body",
    "encode_body",
    "encode_legibly",
    "legible",
]

FORMAT = 1
"""The version of the bodies that this code writes."""


class CallStarted(msgspec.Struct, frozen=True, tag_field="kind", tag="started"):
    """The call exists. `context` is what the tools are given, as JSON."""

    channel: str
    agent: str
    context: msgspec.Raw = msgspec.Raw(b"null")
    peer: str = ""


class TakenOver(msgspec.Struct, frozen=True, tag_field="kind", tag="taken_over"):
    """The entry's writer owns the call from here on: the first entry of every epoch after the first.

    `after` is the writer of the epoch before, whose entries its own follow. Older journals do not name it.
    """

    cause: str
    node: str = ""
    after: str = ""


class ItemWritten(msgspec.Struct, frozen=True, tag_field="kind", tag="item"):
    """An item of the history (`journal.items`) is new or has changed; `after` is the item before it, None for the first."""

    item: dict[str, Any]
    after: str | None = None


class ItemDeleted(msgspec.Struct, frozen=True, tag_field="kind", tag="item_deleted"):
    """An item was removed from the history."""

    item_id: str


class ToolRequested(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_requested"):
    """The model asked for a tool call, of what `agent` offers. The call's id is short enough for the API, see `short_id`."""

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str | None = None
    agent: str = ""


class ApprovalAsked(msgspec.Struct, frozen=True, tag_field="kind", tag="approval_asked"):
    """A person must decide about the call."""

    call_id: str


class ApprovalGiven(msgspec.Struct, frozen=True, tag_field="kind", tag="approval_given"):
    """A person has decided; `always` says that it holds for all further calls of this tool by this agent."""

    call_id: str
    approved: bool
    always: bool = False
    message: str | None = None


class ToolStarted(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_started"):
    """The call is about to run. Without `idempotent`, it never runs a second time."""

    call_id: str
    idempotent: bool = False


class ToolAnswered(msgspec.Struct, frozen=True, tag_field="kind", tag="tool_answered"):
    """The call has its output, which the model is given exactly once. `error_code` says why it is no success."""

    call_id: str
    output: str
    error_code: str | None = None


class AgentChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="agent"):
    """Another agent speaks from here on. Where a call asked for it, that is answered with `output` in the same moment."""

    agent: str
    call_id: str | None = None
    output: str = ""


class ContextChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="context"):
    """What the tools are given has changed."""

    context: msgspec.Raw


class ResponseStarted(msgspec.Struct, frozen=True, tag_field="kind", tag="response_started"):
    """The model began a response."""

    response_id: str


class ResponseEnded(msgspec.Struct, frozen=True, tag_field="kind", tag="response_ended"):
    """The response is over: completed, cancelled, incomplete or failed."""

    response_id: str
    status: str | None = None


class UsageCounted(msgspec.Struct, frozen=True, tag_field="kind", tag="usage"):
    """Tokens of one response."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    requests: int = 1


class LegChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="leg"):
    """A leg was lost or is back. `leg` is "caller" or "model", `reference` what names it outside, such as a call id."""

    leg: str
    state: str
    reference: str | None = None
    cause: str | None = None


class Snapshot(msgspec.Struct, frozen=True, tag_field="kind", tag="snapshot"):
    """All that is known of the call, as `CallState` in JSON: written after entries were lost, in place of them.

    With `after`, as in `TakenOver`, it may also stand for the lost entry by which its writer took the call over.
    """

    state: msgspec.Raw
    after: str = ""


class CallEnded(msgspec.Struct, frozen=True, tag_field="kind", tag="ended"):
    """The call is over; nothing follows.

    `digest` is that of the history as its session had it (`journal.items.history_digest`), to check a replay by. It is empty
    where whoever ended the call had no session with it.
    """

    reason: EndReason
    digest: str = ""


Body: TypeAlias = (
    CallStarted
    | TakenOver
    | ItemWritten
    | ItemDeleted
    | ToolRequested
    | ApprovalAsked
    | ApprovalGiven
    | ToolStarted
    | ToolAnswered
    | AgentChanged
    | ContextChanged
    | ResponseStarted
    | ResponseEnded
    | UsageCounted
    | LegChanged
    | Snapshot
    | CallEnded
)


class UnknownBody(msgspec.Struct, frozen=True):
    """A fact of a kind that this code does not know, written by newer code. It is kept, and changes nothing here."""

    kind: str
    raw: msgspec.Raw


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One fact, in its envelope.

    `seq` counts the entries of a call from 1; only before a snapshot may some be missing. `epoch` counts its owners; `writer`
    tells two apart that claim the same epoch. `time` is Unix seconds by the writer's clock, for people: nothing is ever ordered
    by it. `body` is the encoded body, of format `version`.
    """

    session_id: str
    seq: int
    epoch: int
    writer: str
    time: float
    kind: str
    body: bytes
    version: int = FORMAT


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)
# From each older format to the next: (kind, members) in, members out.
_UPGRADES: Mapping[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}
_KINDS = frozenset(str(struct.__struct_config__.tag) for struct in Body.__args__)


def encode_body(body: Body) -> tuple[str, bytes]:
    """Return a body's kind and its JSON. What is no text, though it came as one, has its broken letters replaced."""
    kind = str(body.__struct_config__.tag)
    try:
        return kind, _encoder.encode(body)
    except UnicodeEncodeError:
        return kind, _encoder.encode({"kind": kind, **_legible_members(body)})


def encode_legibly(value: Any) -> bytes:
    """Encode anything made of structs, dictionaries, lists and plain values, if need be as `encode_body` does."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_legible_members(value) if isinstance(value, msgspec.Struct) else legible(value))


def legible(value: Any) -> Any:
    """Replace half surrogates, which a tool may return and no encoder takes."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {legible(name): legible(member) for name, member in value.items()}
    return [legible(member) for member in value] if isinstance(value, list | tuple) else value


def _legible_members(value: msgspec.Struct) -> dict[str, Any]:
    members = {name: getattr(value, name) for name in value.__struct_fields__}
    # What is encoded already was legible to an encoder.
    return {
        name: member if isinstance(member, msgspec.Raw) else legible(msgspec.to_builtins(member))
        for name, member in members.items()
    }


def decode_body(entry: Entry) -> Body | UnknownBody:
    """Return the body of an entry, brought to the present format.

    Raises JournalFormatError for one that is damaged, or of a format newer than this code.
    """
    if entry.kind not in _KINDS:
        return UnknownBody(entry.kind, msgspec.Raw(entry.body))
    try:
        if entry.version == FORMAT:
            body: Body = _decoder.decode(entry.body)
            return body
        return cast("Body", msgspec.convert(_upgraded(entry), Body))
    except msgspec.MsgspecError as error:
        where = f"entry {entry.seq} ({entry.kind}) of session {entry.session_id}"
        raise JournalFormatError(f"{where} cannot be read: it is damaged ({type(error).__name__})") from None


def _upgraded(entry: Entry) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.json.decode(entry.body)
    for version in range(entry.version, FORMAT):
        step = _UPGRADES.get(version)
        if step is None:
            raise JournalFormatError(f"no way is known from journal format {version} to {version + 1}")
        members = step(entry.kind, members)
    if entry.version > FORMAT:
        raise JournalFormatError(
            f"session {entry.session_id} was written in journal format {entry.version}, this code reads up to {FORMAT}: "
            "run the newer version"
        )
    return members
