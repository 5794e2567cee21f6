"""Sends to a model that must be awaited: everything through one queue, so that nothing overtakes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.errors import UserError
from orchestrator.realtime.model import RealtimeModel

__all__ = ["Sender"]

LIMIT = 1024
_CLOSED = "the session was closed before this was sent"

# An input, who awaits it, and what is to be done once it is sent.
Entry: TypeAlias = "tuple[RealtimeModelSendEvent, asyncio.Future[None] | None, Callable[[], None] | None]"


class Sender:
    """One task that sends in order. When `LIMIT` inputs wait, a further one is refused.

    What the model raises goes to whoever awaits the sending, and to `on_fault` where nobody does.
    """

    def __init__(self, model: RealtimeModel, on_fault: Callable[[Exception], None]) -> None:
        self._model = model
        self._on_fault = on_fault
        self._queue: asyncio.Queue[Entry] = asyncio.Queue(LIMIT)
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="model sender")

    def put(self, event: RealtimeModelSendEvent, sent: Callable[[], None] | None = None) -> None:
        """Queue an input, from a place that must not wait, and call `sent` once the model has taken it.

        A full queue and a failure of the model are reported as a fault; `sent` is not called then.
        """
        try:
            self._queue.put_nowait((event, None, sent))
        except asyncio.QueueFull:
            self._on_fault(UserError("the model takes its input too slowly: an input was refused"))

    async def send(self, event: RealtimeModelSendEvent) -> None:
        """Send after everything that is queued, and return when the model has taken it. Raises what the model raises.

        Cancelling it leaves the input on its way.
        """
        self._refuse_closed()
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((event, sent, None))
        if self._stopping:
            self._void()  # There was no place until it was closed.
        await sent

    async def queue(self, event: RealtimeModelSendEvent) -> None:
        """Queue an input, waiting for a place; a failure of the model is reported as a fault."""
        self._refuse_closed()
        await self._queue.put((event, None, None))

    async def aclose(self) -> None:
        """Stop sending; what is still queued is void, and whoever awaits it is told so. Idempotent."""
        self._stopping = True
        # A model may deliver events while it is being sent to, and one of them may end the session.
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait({self._task})
        self._void()

    def _refuse_closed(self) -> None:
        if self._stopping:
            raise UserError(_CLOSED)

    def _void(self) -> None:
        while not self._queue.empty():
            _, sent, _ = self._queue.get_nowait()
            if sent is not None and not sent.done():
                sent.set_exception(UserError(_CLOSED))

    async def _run(self) -> None:
        while not self._stopping:
            event, sent, then = await self._queue.get()
            try:
                await self._model.send_event(event)
            except asyncio.CancelledError:
                if self._stopping:
                    # Who waits for it was not cancelled itself, so it must not look as if.
                    if sent is not None and not sent.done():
                        sent.set_exception(UserError(_CLOSED))
                    raise
                if sent is not None and not sent.done():
                    sent.cancel()
                # The model's own affair: it cancelled something inside itself.
                self._on_fault(UserError("the model cancelled an input"))
            except Exception as error:  # noqa: BLE001 - the model may be the program's own code
                if sent is None or sent.done():
                    self._on_fault(error)
                else:
                    sent.set_exception(error)
            else:
                if sent is not None and not sent.done():
                    sent.set_result(None)
                if then is not None:
                    then()
