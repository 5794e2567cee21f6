"""What is known of the demo's call: the service's own record of it, and what the caller saw from outside."""

from __future__ import annotations

import msgspec

__all__ = ["CallRecord", "CallerView", "Cut", "DemoResult", "Entry", "Step", "Timings"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a call record. `at_ms` counts from the accept; which other fields are filled depends on `kind`.

    The kinds: "user", "agent" (`text`), "tool" (`name`, `arguments`, `output`, `pid`, `seconds`, `ok`), "interruption"
    (`item_id`, `heard_ms`, `sent_ms`, `transcript`) and "end" (`text`).
    """

    kind: str
    at_ms: float = 0.0
    text: str | None = None
    item_id: str | None = None
    name: str = ""
    arguments: str = ""
    output: str = ""
    pid: int | None = None
    seconds: float = 0.0
    ok: bool = True
    heard_ms: float = 0.0
    sent_ms: float = 0.0
    transcript: str | None = None


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """What the service measured of the call, in milliseconds."""

    accept_to_101_ms: float | None = None
    first_audio_ms: list[float] = []
    barge_in_to_clear_ms: list[float] = []


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The service's record of one call."""

    session_id: str
    channel: str = ""
    session_actor_pid: int | None = None
    entries: list[Entry] = []
    timings: Timings = Timings()

    def of_kind(self, kind: str) -> list[Entry]:
        """The entries of one kind, in order."""
        return [entry for entry in self.entries if entry.kind == kind]


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Where the caller's telephone stopped playing: milliseconds heard of the answer, and thrown away by `clear`."""

    heard_ms: float
    dropped_ms: float


class CallerView(msgspec.Struct, frozen=True, kw_only=True):
    """The call as its caller saw it. Times are milliseconds since the stream was answered; None is what never happened."""

    answered: bool = False
    greeting_heard: bool = False
    question_ended_ms: float | None = None
    answer_began_ms: float | None = None
    interruption_began_ms: float | None = None
    interruption_ended_ms: float | None = None
    cut_ms: float | None = None
    cut: Cut | None = None
    goodbye_began_ms: float | None = None
    hung_up: bool = False
    heard_ms: float = 0.0
    violations: list[str] = []
    trouble: str | None = None

    @property
    def answer_wait_ms(self) -> float | None:
        """How long the caller waited for the answer after the question."""
        return _between(self.question_ended_ms, self.answer_began_ms)

    @property
    def goodbye_wait_ms(self) -> float | None:
        """How long the caller waited for the goodbye after the interruption."""
        return _between(self.interruption_ended_ms, self.goodbye_began_ms)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step that the call must show: a stable name, what it means, whether it was seen, and what was seen."""

    name: str
    text: str
    seen: bool
    detail: str = ""


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the demo has to tell. `endpoint` says which model was asked, `log` is the folder of the logs."""

    endpoint: str
    steps: list[Step]
    record: CallRecord | None
    caller: CallerView
    gateway_pid: int | None = None
    log: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every step was seen."""
        return all(step.seen for step in self.steps)

    def as_json(self) -> bytes:
        """One JSON object for machines."""
        document = {"ok": self.ok, "missing": [step.name for step in self.steps if not step.seen], **msgspec.to_builtins(self)}
        return msgspec.json.encode(document)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
