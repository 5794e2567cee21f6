"""What can go wrong on demand, as data: the entries of `faults:` in a scenario and the bodies of `POST /simulator/faults`.

One fault is an object whose `do` names its kind::

    faults:
      - {do: drop, at: nth_audio_delta, n: 3, nth_session: 2}  # in the middle of an answer, without a close frame
      - {do: drop, code: 1012, after_seconds: 60}              # all sessions there are, a minute after the start
      - {do: stall, at: nth_response, seconds: 2}              # a slow first byte
      - {do: delay, seconds: {lognormal: {median: 0.05, sigma: 0.8}}}
      - {do: transcription, seconds: 1.5, copies: 2}
      - {do: fail, code: rate_limit_exceeded, n: each, probability: 0.05}
      - {do: error, code: server_error, n: 2}
      - {do: expire, at: nth_second, n: 20}
      - {do: refuse, status: 429, retry_after: 3, times: 2}
      - {do: region_down, after_seconds: 30, for_seconds: 10}

Every kind takes the selectors of `Fault`. Everything is counted from when the fault was added or the session began, whichever
is later: responses, deltas, events, seconds and sessions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from websockets.frames import EXTERNAL_CLOSE_CODES

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "AnyFault",
    "Delay",
    "Drop",
    "ErrorFault",
    "Expire",
    "Fail",
    "Fault",
    "Lognormal",
    "Moment",
    "Refuse",
    "RegionDown",
    "Spread",
    "Stall",
    "TranscriptionFault",
    "draw",
]

LONGEST_SECONDS = 86_400.0
_MOST_COPIES = 16
_LONGEST_REASON = 123
"""A close frame carries no more (RFC 6455 §5.5.1)."""

Moment: TypeAlias = Literal["now", "session_created", "nth_response", "nth_audio_delta", "nth_event", "nth_second"]
"""When a fault happens in a session.

`now`: once, in every session that exists when the fault begins. `session_created`: right after that event was sent.
`nth_event`, `nth_response`, `nth_audio_delta`: right after the nth event, `response.created` or audio delta was sent.
`nth_second`: so many seconds into the session.
"""


class Lognormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Most are near `median` seconds, and some take much longer, the more the larger `sigma` is."""

    median: float
    sigma: float = 0.5

    def __post_init__(self) -> None:
        _check_seconds(self.median, "median")
        if not 0 <= self.sigma <= 5:
            raise ValueError("`sigma` must be from 0 to 5")


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution of seconds: `uniform: [least, most]` or `lognormal`. A plain number stands for one that is constant."""

    uniform: tuple[float, float] | None = None
    lognormal: Lognormal | None = None

    def __post_init__(self) -> None:
        if (self.uniform is None) == (self.lognormal is None):
            raise ValueError("seconds are a number, or either `uniform` or `lognormal`")
        if self.uniform is not None:
            least, most = self.uniform
            _check_seconds(least, "uniform")
            _check_seconds(most, "uniform")
            if least > most:
                raise ValueError("`uniform` is [least, most]")


def draw(seconds: float | Spread, random: Random) -> float:
    """One value of a distribution, in seconds, at most a day."""
    if not isinstance(seconds, Spread):
        return seconds
    if seconds.uniform is not None:
        return random.uniform(*seconds.uniform)
    if seconds.lognormal is None:
        raise AssertionError("a spread has one of the two")
    return min(seconds.lognormal.median * random.lognormvariate(0.0, seconds.lognormal.sigma), LONGEST_SECONDS)


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """The selectors that all kinds share.

    `model` and `key` name the clients concerned, all by default; `nth_session` picks one of their sessions by its number. The
    fault can happen from `after_seconds` after it was added, for `for_seconds` (None: until it is removed), at most `times`
    times over all sessions (None: as often as it comes up). With a `probability` below 1 a draw decides each time.
    """

    model: str | None = None
    key: str | None = None
    nth_session: int | None = None
    probability: float = 1.0
    times: int | None = None
    after_seconds: float = 0.0
    for_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.nth_session is not None and self.nth_session < 1:
            raise ValueError("`nth_session` counts from 1")
        if not 0 <= self.probability <= 1:
            raise ValueError("`probability` must be from 0 to 1")
        if self.times is not None and self.times < 1:
            raise ValueError("`times` must be at least 1")
        _check_seconds(self.after_seconds, "after_seconds")
        if self.for_seconds is not None:
            _check_seconds(self.for_seconds, "for_seconds")
        for name in ("n", "seconds"):
            _check_member(name, getattr(self, name, None))

    def __repr__(self) -> str:
        # A key is a secret, even here.
        members = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = ", ".join(f"{name}={value!r}" for name, value in members if name != "key")
        return f"{type(self).__name__}({shown})"


class Drop(Fault, frozen=True, kw_only=True, tag="drop"):
    """End the connection: by cutting TCP, which clients report as 1006, or with `code` by a close frame."""

    at: Moment = "now"
    n: int | Literal["each"] = 1
    code: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.code is not None and self.code not in EXTERNAL_CLOSE_CODES and not 3000 <= self.code < 5000:
            raise ValueError("`code` must be one that may be sent: 1000 to 1014 as defined, or 3000 to 4999; none cuts TCP")
        if len(self.reason.encode()) > _LONGEST_REASON:
            raise ValueError(f"`reason` has at most {_LONGEST_REASON} bytes")


class Stall(Fault, frozen=True, kw_only=True, tag="stall"):
    """Leave the connection open, but send nothing, read nothing, or neither; not even pings are answered then.

    It ends after `seconds`, with the time of the fault, or when the fault is removed, and then all goes on where it stopped.
    With `at: connect` the answer to the upgrade waits.
    """

    at: Moment | Literal["connect"] = "now"
    n: int | Literal["each"] = 1
    seconds: float | None = None
    direction: Literal["both", "send", "receive"] = "both"


class Delay(Fault, frozen=True, kw_only=True, tag="delay"):
    """Send every frame later by `seconds`, drawn for each; their order is kept. One draw per session decides whether at all."""

    seconds: float | Spread


class TranscriptionFault(Fault, frozen=True, kw_only=True, tag="transcription"):
    """Send what was understood of the caller later by `seconds`, past other events, and its completion `copies` times."""

    seconds: float | Spread = 0.0
    copies: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.copies <= _MOST_COPIES:
            raise ValueError(f"`copies` must be from 1 to {_MOST_COPIES}")


class ErrorFault(Fault, frozen=True, kw_only=True, tag="error"):
    """Send an `error` event out of the blue; the session goes on."""

    at: Moment = "nth_response"
    n: int | Literal["each"] = 1
    type: str = "server_error"
    code: str | None = "server_error"
    message: str = "The server had an error while processing your request. Sorry about that!"


class Fail(Fault, frozen=True, kw_only=True, tag="fail"):
    """Fail the response that is active. Codes seen: inference_rate_limit_exceeded, rate_limit_exceeded, insufficient_quota,
    credit_balance_exhausted, server_error.
    """

    at: Literal["now", "nth_response", "nth_audio_delta", "nth_second"] = "nth_response"
    n: int | Literal["each"] = 1
    type: str = "server_error"
    code: str = "server_error"
    message: str = "The server had an error while processing your request. Sorry about that!"


class Expire(Fault, frozen=True, kw_only=True, tag="expire"):
    """The session has reached its greatest age: the `session_expired` error, then close 1001."""

    at: Moment = "now"
    n: int | Literal["each"] = 1


class Refuse(Fault, frozen=True, kw_only=True, tag="refuse"):
    """Answer the upgrade with an HTTP `status`, or with none by closing TCP. `retry_after` is in seconds."""

    status: int | None = None
    retry_after: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.status is not None and not 400 <= self.status <= 599:
            raise ValueError("`status` must be from 400 to 599")
        if self.retry_after is not None and (self.status is None or self.retry_after < 0):
            raise ValueError("`retry_after` is a number of seconds, and needs a `status`")


class RegionDown(Refuse, frozen=True, kw_only=True, tag="region_down"):
    """Drop all sessions, and refuse every connection and request as `Refuse` does, those that drive the simulator excepted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nth_session is not None or self.times is not None or self.probability != 1:
            raise ValueError("a region is down for all: no `nth_session`, `times` or `probability`")


AnyFault: TypeAlias = Drop | Stall | Delay | TranscriptionFault | ErrorFault | Fail | Expire | Refuse | RegionDown


def _check_member(name: str, value: object) -> None:
    if name == "n" and isinstance(value, int) and value < 1:
        raise ValueError("`n` counts from 1")
    if name == "seconds" and isinstance(value, float | int):
        _check_seconds(value, name)


def _check_seconds(value: float, name: str) -> None:
    if not (math.isfinite(value) and 0 <= value <= LONGEST_SECONDS):
        raise ValueError(f"`{name}` must be from 0 to {LONGEST_SECONDS:.0f} seconds")
