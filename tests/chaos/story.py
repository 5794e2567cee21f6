"""What is known of a run, as data: what callers noticed, what journals tell, what tools did, and what went wrong when."""

from __future__ import annotations

import msgspec

__all__ = ["Blow", "Effect", "Said", "Story", "Tale", "Turn"]


class Turn(msgspec.Struct):
    """One turn of a caller. Times are Unix seconds; `answers` counts complete answers, of which there is to be one."""

    number: int
    what: str
    asked_at: float
    answered_at: float | None = None
    answers: int = 0


class Story(msgspec.Struct, kw_only=True):
    """One call, as its caller saw it.

    `kind` is "conversation" or "phone", `path` "direct" or "chopped". `reference` names the call to the service: the session's
    id, or the carrier's call id. `lost` says how the call was lost, `silences` how long after each fault nothing was heard,
    `faults` what was wrong with what was heard. `cuts` counts answers that were broken off.
    """

    caller: int
    kind: str
    path: str
    reference: str = ""
    began: bool = False
    over: bool = False
    lost: str | None = None
    lost_at: float | None = None
    turns: list[Turn] = []
    silences: list[tuple[float, float]] = []
    longest_silence: float = 0.0
    cuts: int = 0
    frames_sent: int = 0
    faults: list[str] = []

    @property
    def label(self) -> str:
        """Name the call for people."""
        return f"{self.kind} {self.caller} ({self.path}, {self.reference})"


class Said(msgspec.Struct, frozen=True):
    """One message of a call's history: by whom ("user" or "assistant"), the turn that it names, whether it is complete."""

    role: str
    turn: int
    complete: bool = True


class Tale(msgspec.Struct, kw_only=True):
    """One call, as its journal tells it. `broken` are the checks that do not hold; `missing` counts entries.

    `taken_over`, `model_lost` and `model_live` are Unix times, in order.
    """

    session_id: str
    reference: str
    history: list[Said] = []
    ended: str | None = None
    broken: list[str] = []
    missing: int = 0
    taken_over: list[float] = []
    model_lost: list[float] = []
    model_live: list[float] = []


class Effect(msgspec.Struct, frozen=True):
    """One effect of a tool."""

    tool: str
    key: str
    turn: int
    pid: int = 0

    @property
    def session_id(self) -> str:
        """The call that the key is of."""
        return self.key.rpartition(":")[0]


class Blow(msgspec.Struct, kw_only=True):
    """One fault as it was injected: `at` in Unix seconds; `sessions` lost their owner, or all were concerned.

    `alive_after` and `sockets_kept` are known once things have settled. `recovered` is when what was killed was back.
    """

    kind: str
    at: float
    detail: str = ""
    sessions: list[str] = []
    alive_before: int = 0
    alive_after: int | None = None
    sockets_kept: int | None = None
    recovered: float | None = None
