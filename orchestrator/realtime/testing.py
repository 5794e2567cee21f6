"""A model that follows a script: tests of agents, tools and guardrails with the real session and without an endpoint.

A script says what the session is expected to send, and what the model reports back::

    model = ScriptedRealtimeModel([
        RealtimeStep(RealtimeModelSendUserInput("hello"), emit=[RealtimeModelTurnStartedEvent(response_id="r1"), ...]),
        RealtimeStep(RealtimeModelSendToolOutput),
    ])
    async with await RealtimeRunner(agent, model=model).run() as session:
        await session.send_message("hello")
        ...
    model.assert_complete()

It belongs to one event loop and is not a direct model, so a session awaits its sends. What a session sends from a place that
must not wait (tool outputs, handoffs, what a guardrail sends) goes through a task of the session: there, a mismatch or a
step's `error` reaches the program as an `error` event, and `assert_complete` names it beside the steps that were not reached.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import enum
import inspect
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from orchestrator.core.events import RealtimeModelEvent, RealtimeModelToolCallEvent
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendEvent,
    RealtimeModelSendInterrupt,
    RealtimeModelSendRawMessage,
    RealtimeModelSendSessionUpdate,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import OrchestratorError
from orchestrator.realtime.config import RealtimeSessionModelSettings
from orchestrator.realtime.model import RealtimeModel, RealtimeModelConfig, RealtimeModelListener, RealtimePlaybackTracker

__all__ = [
    "RealtimeConnectCall",
    "RealtimeScriptError",
    "RealtimeStep",
    "ScriptedRealtimeModel",
    "UnconsumedRealtimeSteps",
    "UnexpectedRealtimeSend",
]

# An event that must be equal, a class that the event must be of, or a plain function that says yes or no.
Expectation: TypeAlias = RealtimeModelSendEvent | type[Any] | Callable[[Any], bool]

_INPUTS = (
    RealtimeModelSendAudio,
    RealtimeModelSendInterrupt,
    RealtimeModelSendRawMessage,
    RealtimeModelSendSessionUpdate,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)


class RealtimeScriptError(OrchestratorError, AssertionError):
    """The test and its script do not fit together; also for a send or an emit while the model is not connected."""

    code = "realtime_script"


class UnexpectedRealtimeSend(RealtimeScriptError):
    """The session sent `actual`, where the script has `expected` next; None when the script had come to its end."""

    code = "unexpected_realtime_send"

    def __init__(self, actual: RealtimeModelSendEvent, expected: Expectation | None) -> None:
        wanted = "has come to its end" if expected is None else f"expects {_describe(expected)} next"
        super().__init__(f"the session sent {_describe(actual)}, but the script {wanted}")
        self.actual = actual
        self.expected = expected


class UnconsumedRealtimeSteps(RealtimeScriptError):
    """The script has steps that the session did not reach; `remaining_steps` are these, in order."""

    code = "unconsumed_realtime_steps"

    def __init__(self, remaining_steps: Sequence[RealtimeStep]) -> None:
        self.remaining_steps = tuple(remaining_steps)
        listed = "".join(f"\n  {_describe(step.expect)}" for step in self.remaining_steps)
        super().__init__(f"{len(self.remaining_steps)} step(s) of the script were not reached:{listed}")


@dataclasses.dataclass(frozen=True, slots=True)
class RealtimeStep:
    """One send that the script expects, and what follows from it.

    `expect` is an event that must be equal, a class, or a plain function `(event) -> bool`. A send that fits is answered with
    the events of `emit`, or raises `error`. Raises ValueError for a step with both, TypeError for an `expect` of another kind.
    """

    expect: Expectation
    emit: Sequence[RealtimeModelEvent] = ()
    error: BaseException | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.expect, _INPUTS) and not callable(self.expect):
            raise TypeError(f"expect must be a send event, a class or a function, not {type(self.expect).__name__}")
        object.__setattr__(self, "emit", tuple(self.emit))
        if self.emit and self.error is not None:
            raise ValueError("a step either emits events or raises an error, not both")


@dataclasses.dataclass(frozen=True, slots=True)
class RealtimeConnectCall:
    """What one `connect` was given, without its secrets.

    Of the key and the headers only whether they were there is kept; `url` has lost its user, its query and its fragment.
    """

    api_key_provided: bool
    headers_provided: bool
    url: str | None
    initial_model_settings: RealtimeSessionModelSettings
    playback_tracker: RealtimePlaybackTracker | None
    call_id: str | None


class _Connection(enum.Enum):
    """Where the connection stands. A closed model may be connected again."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class _Broadcast:
    """Events on their way to the listeners."""

    __slots__ = ("done", "events", "nested")

    def __init__(self, events: Iterable[RealtimeModelEvent]) -> None:
        self.events = deque(events)
        # Resolves when the events are delivered or void; holds what a listener raised.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # What listeners caused by sending in the middle of this broadcast.
        self.nested: list[_Broadcast] = []


# The broadcast in which the running code was called, also in tasks that a listener started.
_inside: contextvars.ContextVar[_Broadcast | None] = contextvars.ContextVar("_inside", default=None)


class ScriptedRealtimeModel(RealtimeModel):
    """A model that answers each send with the next step of a script.

    A send that fits the next step consumes it; the step's events then reach all listeners, one event after the other. A send
    that does not fit raises UnexpectedRealtimeSend and changes nothing; with `strict=False` it is recorded and passes instead.
    Matching is one piece of code without an await, so between a check, its match and its record nothing can happen.

    `connect_events` are reported by each `connect`; `connect_error` is raised by it, `close_error` by the first `close`.
    Raises ValueError for `connect_events` together with `connect_error`.
    """

    def __init__(
        self,
        steps: Iterable[RealtimeStep] = (),
        *,
        connect_events: Iterable[RealtimeModelEvent] = (),
        connect_error: BaseException | None = None,
        close_error: BaseException | None = None,
        strict: bool = True,
    ) -> None:
        self._steps = deque(steps)
        self._connect_events = tuple(connect_events)
        if self._connect_events and connect_error is not None:
            raise ValueError("a connection either reports events or fails, not both")
        self._connect_error = connect_error
        self._close_error = close_error
        self._strict = strict
        self._connection = _Connection.NEW
        self._listeners: list[RealtimeModelListener] = []
        self._connect_calls: list[RealtimeConnectCall] = []
        self._close_calls = 0
        self._sent: list[RealtimeModelSendEvent] = []
        self._refused: list[str] = []
        # Tool calls that were reported, by id: a tool's output is recorded with its call as the script wrote it.
        self._calls: dict[str, RealtimeModelToolCallEvent] = {}
        self._delivery = _Delivery(self._listeners)

    @property
    def listeners(self) -> tuple[RealtimeModelListener, ...]:
        """The listeners, in the order in which they hear events."""
        return tuple(self._listeners)

    @property
    def connect_calls(self) -> tuple[RealtimeConnectCall, ...]:
        """What each `connect` was given, also one that failed; a second connect while connected does not count."""
        return tuple(self._connect_calls)

    @property
    def close_calls(self) -> int:
        """How often `close` was called."""
        return self._close_calls

    @property
    def sent_events(self) -> tuple[RealtimeModelSendEvent, ...]:
        """Copies of what was sent: what sender or reader change of their own later is not seen here.

        Agents, tools and handoffs inside of settings are the very objects.
        """
        return tuple(_detached(event) for event in self._sent)

    @property
    def remaining_steps(self) -> tuple[RealtimeStep, ...]:
        """The steps that were not reached yet."""
        return tuple(self._steps)

    @property
    def connected(self) -> bool:
        """Is the connection open?"""
        return self._connection is _Connection.OPEN

    @property
    def closed(self) -> bool:
        """Was the connection closed, and not opened again?"""
        return self._connection is _Connection.CLOSED

    def add_listener(self, listener: RealtimeModelListener) -> None:
        """Add a listener; adding one twice has no effect."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def remove_listener(self, listener: RealtimeModelListener) -> None:
        """Remove a listener; no effect when it is not there."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def connect(self, options: RealtimeModelConfig) -> None:
        """Open the connection and report `connect_events`.

        Raises RealtimeScriptError when it is open already, `connect_error`, and what a listener raises. Cancelling it, as any
        failure, leaves no connection behind.
        """
        if self.connected:
            raise RealtimeScriptError("Already connected")
        self._connect_calls.append(_connect_call(options))
        if self._connect_error is not None:
            raise self._connect_error
        self._connection = _Connection.OPEN
        try:
            await self._report(self._connect_events)
        except BaseException:
            self._disconnect()
            raise

    async def send_event(self, event: RealtimeModelSendEvent) -> None:
        """Match a send with the script, and return when all that it led to is delivered; from inside a listener, at once.

        Raises RealtimeScriptError when not connected, UnexpectedRealtimeSend, the step's `error`, and what a listener or the
        step's function raises. Cancelling it does not stop the delivery.
        """
        self._check_connected(f"send {type(event).__name__}")
        await self._report(self._take(event))

    async def send_event_if(self, event: RealtimeModelSendEvent, send_if: Callable[[], bool]) -> bool:
        """Do as `send_event` if `send_if()` says yes in the very moment of sending; return whether it did."""
        self._check_connected(f"send {type(event).__name__}")
        if not _plain_answer(send_if()):
            return False
        await self._report(self._take(event))
        return True

    async def emit(self, *events: RealtimeModelEvent) -> None:
        """Report events that no send asked for, such as the caller's speech. Returns and raises as `send_event` does."""
        self._check_connected("emit")
        await self._report(events)

    async def close(self) -> None:
        """Close the connection; events that are not delivered yet are void. Harmless when it is closed.

        The first call raises `close_error`, if there is one, and leaves things as they are: the next one closes.
        """
        self._close_calls += 1
        error, self._close_error = self._close_error, None
        if error is not None:
            raise error
        self._disconnect()

    def assert_complete(self) -> None:
        """Raise UnconsumedRealtimeSteps unless the session reached the end of the script.

        Notes of the error name the sends that were refused: a session may have turned the refusal into an `error` event.
        """
        if not self._steps:
            return
        error = UnconsumedRealtimeSteps(self.remaining_steps)
        for refused in self._refused:
            error.add_note(f"refused: {refused}")
        raise error

    def _check_connected(self, what: str) -> None:
        if not self.connected:
            raise RealtimeScriptError(f"cannot {what}: the model is not connected")

    def _take(self, event: RealtimeModelSendEvent) -> Sequence[RealtimeModelEvent]:
        """Match and record a send; return what it leads to."""
        sent = self._as_scripted(_detached(event))
        step = self._steps[0] if self._steps else None
        if step is not None and _fits(step.expect, sent):
            self._steps.popleft()
            self._sent.append(sent)
            if step.error is not None:
                raise step.error
            return step.emit
        if self._strict:
            error = UnexpectedRealtimeSend(sent, None if step is None else step.expect)
            self._refused.append(error.message)
            raise error
        self._sent.append(sent)
        return ()

    def _as_scripted(self, event: RealtimeModelSendEvent) -> RealtimeModelSendEvent:
        """Give a tool's output the call as the model reported it, so that the two can be compared."""
        if isinstance(event, RealtimeModelSendToolOutput) and isinstance(event.tool_call, ToolCall):
            call = event.tool_call
            reported = self._calls.get(call.call_id)
            event.tool_call = reported or RealtimeModelToolCallEvent(
                call.name, call.call_id, call.arguments, id=call.item_id, response_id=call.response_id
            )
        return event

    async def _report(self, events: Sequence[RealtimeModelEvent]) -> None:
        for event in events:
            if isinstance(event, RealtimeModelToolCallEvent):
                self._calls.setdefault(event.call_id, event)
        if events:
            await self._delivery.deliver(events)

    def _disconnect(self) -> None:
        self._connection = _Connection.CLOSED
        self._delivery.void()


class _Delivery:
    """Takes broadcasts to the listeners, one after the other, in one task that ends when there are none left."""

    def __init__(self, listeners: list[RealtimeModelListener]) -> None:
        self._listeners = listeners
        self._queue: deque[_Broadcast] = deque()
        self._current: _Broadcast | None = None
        self._task: asyncio.Task[None] | None = None

    async def deliver(self, events: Iterable[RealtimeModelEvent]) -> None:
        """Queue events and wait for them and for what they lead to.

        Code that a listener runs does not wait, since the delivery waits for the listener: who started that broadcast waits
        for these events too, and is told what goes wrong with them.
        """
        broadcast = _Broadcast(events)
        self._queue.append(broadcast)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="scripted model delivery")
        outer = _inside.get()
        if outer is not None and outer is self._current:
            outer.nested.append(broadcast)
        else:
            await _settled(broadcast)

    def void(self) -> None:
        """Drop what is not delivered yet. A listener that is being served is left to end by itself."""
        if self._current is not None:
            self._current.events.clear()
        while self._queue:
            self._queue.popleft().done.set_result(None)

    async def _run(self) -> None:
        try:
            while self._queue:
                self._current = broadcast = self._queue.popleft()
                _inside.set(broadcast)
                try:
                    await self._serve(broadcast)
                except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # noqa: BLE001 - a listener is a test's code, whose failures may be no Exception
                    broadcast.done.set_exception(error)
                else:
                    broadcast.done.set_result(None)
        finally:
            # Only a loop that is shut down comes here with work left; who waits for it must not wait for ever.
            for left in (self._current, *self._queue):
                if left is not None and not left.done.done():
                    left.done.cancel()
            self._queue.clear()
            self._current = self._task = None

    async def _serve(self, broadcast: _Broadcast) -> None:
        while broadcast.events:
            event = broadcast.events.popleft()
            for listener in tuple(self._listeners):
                await listener.on_event(event)


async def _settled(broadcast: _Broadcast) -> None:
    # Not awaited itself: a sender that is cancelled must not take the delivery with it, and a listener's error that nobody
    # asks for any more then reaches the loop's exception handler.
    await asyncio.wait({broadcast.done})
    broadcast.done.result()
    for nested in broadcast.nested:
        await _settled(nested)


def _fits(expect: Expectation, event: RealtimeModelSendEvent) -> bool:
    if isinstance(expect, type):
        return isinstance(event, expect)
    if isinstance(expect, _INPUTS):
        return expect == event
    # A copy of its own, so that a function that changes what it looks at changes no record.
    return _plain_answer(expect(_detached(event)))


def _plain_answer(answer: Any) -> bool:
    """Return the answer of a test's function. An async one would always say yes, so it is refused."""
    if inspect.iscoroutine(answer):
        answer.close()
    if inspect.isawaitable(answer):
        raise TypeError("a function of a script must be a plain one: sends are matched without waiting")
    return bool(answer)


def _detached(value: Any) -> Any:
    """Copy data; anything else is an object with an identity of its own, and stays itself."""
    if isinstance(value, _INPUTS):
        fields = {field.name: _detached(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if type(value) is dict:
        return {key: _detached(entry) for key, entry in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(_detached, value))
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value


def _connect_call(options: RealtimeModelConfig) -> RealtimeConnectCall:
    return RealtimeConnectCall(
        api_key_provided=options.get("api_key") is not None,
        headers_provided=options.get("headers") is not None,
        url=_without_secrets(options.get("url")),
        initial_model_settings=_detached(options.get("initial_model_settings") or {}),
        playback_tracker=options.get("playback_tracker"),
        call_id=options.get("call_id"),
    )


def _without_secrets(url: str | None) -> str | None:
    """Keep of an address what cannot hold a password or a key."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(malformed)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _Short(reprlib.Repr):
    """Values as they stand in an error: enough to know them again, and no seconds of audio."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 200


def _describe(value: Any) -> str:
    if isinstance(value, type):
        return f"any {value.__name__}"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__)
        code = getattr(value, "__code__", None)
        return f"what {name} accepts" + (f" ({code.co_filename}:{code.co_firstlineno})" if code else "")
    return _Short().repr(value)
