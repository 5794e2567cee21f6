"""When a response may be asked for: never while another is active.

Requests wait in order until the response that is under way has ended. A request that the model neither answers nor refuses
before its deadline is given up with an error, so that a silent server cannot block the conversation for ever. The model also
starts responses by itself after a turn; such a response can overtake our request, which the model then refuses: the request
goes back to the front of the line.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias

import msgspec

from orchestrator.core.states import RESPONSE, Machine, ResponseSignal, ResponseState

__all__ = ["CancelResponse", "CreateResponse", "GaveUp", "ResponseCommand", "ResponseRequest", "ResponseSequencer"]

ALREADY_ACTIVE = "conversation_already_has_active_response"
NOTHING_TO_CANCEL = "response_cancel_not_active"
MAX_WAITING = 64


class ResponseRequest(msgspec.Struct, frozen=True):
    """A wish for a response. `body` is what the program put into `response.create`; None is the automatic kind.

    Automatic requests that wait together are served by one response; those with a body are sent one each. `after` is the
    response whose tool calls it follows, None when somebody else asks.
    """

    body: Any = None
    event_id: str | None = None
    after: str | None = None


class CreateResponse(msgspec.Struct, frozen=True):
    """Send `response.create`, with the event id by which its refusal is known."""

    event_id: str
    body: Any = None


class CancelResponse(msgspec.Struct, frozen=True):
    """Send `response.cancel` for this response."""

    event_id: str
    response_id: str | None


class GaveUp(msgspec.Struct, frozen=True):
    """A request was dropped: `code` is "response_timeout", "refused" or "overflow"."""

    code: str
    request: ResponseRequest


ResponseCommand: TypeAlias = CreateResponse | CancelResponse | GaveUp


class _Asked(msgspec.Struct, frozen=True):
    """A request on the wire, and the event id by which a refusal of it is known. Nobody wants one any more that is `void`."""

    event_id: str
    request: ResponseRequest
    void: bool = False


class _Waiting(msgspec.Struct, frozen=True):
    """A request in line, and the time at which it gives up."""

    request: ResponseRequest
    give_up_at: float


class ResponseSequencer:
    """The order of responses in one model session.

    Every method returns the commands to perform now, in order. `deadline` is the time (seconds, same clock as `now`) at which
    `expire` must be called, or None. `timeout` (seconds) bounds the wait for the answer to `response.create`, `wait_timeout`
    the wait for the response before it to end.
    """

    __slots__ = (
        "_again",
        "_asked",
        "_asked_until",
        "_held",
        "_ids",
        "_machine",
        "_timeout",
        "_wait_timeout",
        "_waiting",
        "active_id",
    )

    def __init__(self, timeout: float = 15.0, wait_timeout: float = 60.0) -> None:
        self._machine = Machine(ResponseState.IDLE, RESPONSE)
        self._timeout = timeout
        self._wait_timeout = wait_timeout
        self._waiting: deque[_Waiting] = deque()
        # Kept while the response that may have served it is active: only then is it known whose response that is.
        self._asked: _Asked | None = None
        self._asked_until: float | None = None
        # Is there no connection that anything could be asked over?
        self._held = False
        # What is asked for again because a connection was lost, as long as it waits.
        self._again: _Waiting | None = None
        self._ids = 0
        # Id of the response under way, None when there is none or it is only asked for.
        self.active_id: str | None = None

    @property
    def state(self) -> ResponseState:
        """What is under way."""
        return self._machine.state

    @property
    def held(self) -> bool:
        """Does everything wait for a connection?"""
        return self._held

    @property
    def waiting(self) -> int:
        """How many requests wait in line."""
        return len(self._waiting)

    @property
    def open_requests(self) -> list[ResponseRequest]:
        """What was asked for and has not begun, in order."""
        asked = self._asked
        first = [] if asked is None or asked.void or self.state is not ResponseState.REQUESTED else [asked.request]
        return [*first, *(entry.request for entry in self._waiting)]

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called, or None."""
        if self._held:
            return None
        first = self._waiting[0].give_up_at if self._waiting else None
        if self._asked_until is None or first is None:
            return first if self._asked_until is None else self._asked_until
        return min(first, self._asked_until)

    def request(self, request: ResponseRequest, now: float) -> list[ResponseCommand]:
        """Ask for a response as soon as none is under way."""
        if self._joins(request):
            return []
        if len(self._waiting) >= MAX_WAITING:
            return [GaveUp("overflow", request)]
        self._waiting.append(_Waiting(request, now + self._wait_timeout))
        return self._next(now)

    def withdraw(self, response_id: str) -> None:
        """A response goes on calling tools: what its earlier calls alone asked for would come too early."""
        self._waiting = deque(entry for entry in self._waiting if entry.request.after != response_id)

    def created(self, response_id: str) -> list[ResponseCommand]:
        """Note that the model started a response of the default conversation; one that was given up meanwhile is cancelled."""
        unwanted = self.state is ResponseState.REQUESTED and self._asked is not None and self._asked.void
        self._machine.signal(ResponseSignal.CREATED)
        self.active_id = response_id
        self._asked_until = None
        return self.cancel() if unwanted else []

    def abandon(self) -> None:
        """Give up the request that is on the wire: what comes of it is cancelled, and it is not asked for again.

        As long as the model has neither answered nor refused it, the response under way may be its answer or the model's own.
        """
        if self._asked is not None:
            self._asked = msgspec.structs.replace(self._asked, void=True)

    def done(self, response_id: str, now: float) -> list[ResponseCommand]:
        """Note that a response ended; one that is not the active one changes nothing."""
        if response_id != self.active_id:
            return []
        self._machine.signal(ResponseSignal.DONE)
        self.active_id = None
        self._asked = None
        return self._next(now)

    def cancel(self, response_id: str | None = None) -> list[ResponseCommand]:
        """Cancel the response under way, once. Nothing happens when there is none, or another one than named."""
        if self.state is not ResponseState.ACTIVE or (response_id is not None and response_id != self.active_id):
            return []
        self._machine.signal(ResponseSignal.CANCEL)
        return [CancelResponse(self._mint("cancel"), self.active_id)]

    def is_race(self, event_id: str | None, code: str | None) -> bool:
        """Tell whether an error only says that the model's own response, or its end, was faster than what we asked for."""
        if code == NOTHING_TO_CANCEL:
            return self.state is ResponseState.CANCELLING
        return code == ALREADY_ACTIVE and self._asked is not None and event_id == self._asked.event_id

    def refused(self, event_id: str | None, code: str | None, now: float) -> list[ResponseCommand]:
        """Take in an error of the model, which may answer one of our requests."""
        if self.state is ResponseState.CANCELLING and code == NOTHING_TO_CANCEL:
            self._machine.signal(ResponseSignal.REFUSED)
            return []
        asked = self._asked
        if asked is None or event_id != asked.event_id:
            return []
        self._asked = None
        if code == ALREADY_ACTIVE and not asked.void and not self._joins(asked.request):
            # The model's own response was first, so the active one is not ours: ours is asked for again after it.
            self._waiting.appendleft(_Waiting(asked.request, now + self._wait_timeout))
        if self.state is not ResponseState.REQUESTED:
            return []
        self._asked_until = None
        self._machine.signal(ResponseSignal.REFUSED)
        if code == ALREADY_ACTIVE:
            return []
        return [GaveUp("refused", asked.request), *self._next(now)]

    def expire(self, now: float) -> list[ResponseCommand]:
        """Give up what waited too long. Harmless at any other time."""
        if self._held:
            return []
        commands: list[ResponseCommand] = []
        if self._asked is not None and self._asked_until is not None and now >= self._asked_until:
            commands.append(GaveUp("response_timeout", self._asked.request))
            self._asked = None
            self._asked_until = None
            self._machine.signal(ResponseSignal.GAVE_UP)
        while self._waiting and now >= self._waiting[0].give_up_at:
            commands.append(GaveUp("response_timeout", self._waiting.popleft().request))
        return commands + self._next(now)

    def reset(self) -> None:
        """Forget everything: the model session is gone."""
        self._machine.signal(ResponseSignal.RESET)
        self._waiting.clear()
        self._asked = None
        self._asked_until = None
        self._held = False
        self.active_id = None

    def lost(self, now: float, *, again: bool) -> None:
        """The connection is gone, and another will take its place: what is asked for waits until `resume`.

        What was asked for and not answered is asked for again, and so is the response under way if `again`.
        """
        asked = self._asked
        request = None if asked is None or asked.void else asked.request
        wanted = again or self.state is ResponseState.REQUESTED
        self._machine.signal(ResponseSignal.RESET)
        self._asked = None
        self._asked_until = None
        self._held = True
        self.active_id = None
        if not wanted or (asked is not None and asked.void):
            return
        request = request or ResponseRequest()
        if not self._joins(request):
            self._again = _Waiting(request, now + self._wait_timeout)
            self._waiting.appendleft(self._again)

    def forget_lost(self) -> None:
        """Nobody wants the response any more that is to be asked for again."""
        if self._again is not None and self._again in self._waiting:
            self._waiting.remove(self._again)
        self._again = None

    def resume(self, now: float) -> list[ResponseCommand]:
        """There is a connection again."""
        self._held = False
        self._again = None
        self._waiting = deque(_Waiting(entry.request, now + self._wait_timeout) for entry in self._waiting)
        return self._next(now)

    def _joins(self, request: ResponseRequest) -> bool:
        """Let an automatic request be served with another one that waits; returns whether there is one."""
        if request.body is not None:
            return False
        for index, entry in enumerate(self._waiting):
            if entry.request.body is None:
                if entry.request.after != request.after:
                    # It now serves more than the tool calls of one response.
                    self._waiting[index] = _Waiting(ResponseRequest(), entry.give_up_at)
                return True
        return False

    def _next(self, now: float) -> list[ResponseCommand]:
        if self._held or self.state is not ResponseState.IDLE or not self._waiting:
            return []
        request = self._waiting.popleft().request
        self._asked = _Asked(request.event_id or self._mint("create"), request)
        self._asked_until = now + self._timeout
        self._machine.signal(ResponseSignal.REQUEST)
        return [CreateResponse(self._asked.event_id, request.body)]

    def _mint(self, kind: str) -> str:
        self._ids += 1
        return f"orchestrator_response_{kind}_{self._ids}"
