"""A conversation with the front door: numbered turns, each of which must be answered by its number, exactly once."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from orchestrator.simulator.audio import Encoding
from tests.chaos.callers import Call, LostCallError
from tests.chaos.labels import Sentence, frames_of, read_label
from tests.chaos.story import Story, Turn

__all__ = ["Conversation"]

PING_EVERY = 0.05
# Seconds until a turn that the model could not answer is asked for again, as any client does.
ASK_AGAIN = 0.5
# An answer to a turn that was answered already may come for so long.
LAST_LOOK = 1.0
_NUMBER = re.compile(r"answers turn (\d+)")
_MULAW = {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}}


class Conversation(Call):
    """One client. Every third turn asks for a tool with a side effect: by turns one that must not run again, and one that may.

    `port` is where it connects, `ledger` the file that the tools write to. With `mulaw` it asks for another format than the
    default, which every owner of its call has to remember.
    """

    def __init__(self, story: Story, *, port: int, ledger: str, seed: int, mulaw: bool, pace: float, patience: float) -> None:
        super().__init__(story, patience=patience)
        self._port = port
        self._ledger = ledger
        self._random = random.Random(seed)
        self._mulaw = mulaw
        self._pace = pace
        self._encoding = Encoding.MULAW if mulaw else Encoding.PCM16
        self._ready = asyncio.Event()
        self._answered = asyncio.Event()
        self._turn: Turn | None = None
        self._open: str | None = None
        self._sentences: dict[str, Sentence] = {}
        self._again: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Talk until told to stop."""
        url = f"ws://127.0.0.1:{self._port}/v1/realtime?model=gpt-realtime"
        try:
            async with connect(
                url, compression=None, ping_interval=None, max_size=None, open_timeout=30, close_timeout=self._patience
            ) as socket:
                await self._converse(socket)
                for task in self._again:
                    task.cancel()
                await socket.close()
            self.story.over = True
        except (LostCallError, ConnectionClosed, OSError, InvalidStatus, TimeoutError) as error:
            self.story.lost, self.story.lost_at = f"{type(error).__name__}: {error}", time.time()

    async def _converse(self, socket: ClientConnection) -> None:
        reader = asyncio.create_task(self._read(socket))
        pinger = asyncio.create_task(self._ping(socket))
        speaker = asyncio.create_task(self._speak(socket))
        tasks = {reader, pinger, speaker}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not speaker.done():
                # The stream has ended, or this client has: what the reader found is the reason.
                for task in (reader, pinger):
                    if task.done():
                        task.result()
                raise LostCallError(f"closed with {socket.close_code} {socket.close_reason}")
            speaker.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _ping(self, socket: ClientConnection) -> None:
        """Make the service answer often, so that a gap shows as long as it is."""
        while True:
            await (await socket.ping())
            self._sign_of_life()
            await asyncio.sleep(PING_EVERY)

    async def _speak(self, socket: ClientConnection) -> None:
        await self._within(self._ready, "no session.created")
        self.story.began = True
        if self._mulaw:
            await _send(socket, {"type": "session.update", "session": {"type": "realtime", **_MULAW}})
        number = 0
        while not self._stopping:
            number += 1
            await self._ask(socket, number)
            await self._within(self._answered, f"no answer to turn {number}")
            await asyncio.sleep(self._random.random() * 2 * self._pace)
        await asyncio.sleep(LAST_LOOK)

    async def _ask(self, socket: ClientConnection, number: int) -> None:
        what = ("plain", "plain", "book", "plain", "plain", "reserve")[number % 6]
        text = f"This is turn {number}." if what == "plain" else f"This is turn {number}, please {what} in {self._ledger}"
        self._answered.clear()
        self._turn = self._asked(number, what)
        content = [{"type": "input_text", "text": text}]
        item = {"id": f"turn_{number}", "type": "message", "role": "user", "content": content}
        await _send(socket, {"type": "conversation.item.create", "item": item})
        await _send(socket, {"type": "response.create"})

    async def _within(self, event: asyncio.Event, what: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await event.wait()
        except TimeoutError:
            raise LostCallError(f"{what} within {self._patience:g} s") from None

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            self._sign_of_life()
            self._take(socket, msgspec.json.decode(message))

    def _take(self, socket: ClientConnection, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.created":
                if self.story.reference:
                    self._note("a second session.created")
                self.story.reference = event["session"]["id"]
                self._ready.set()
            case "response.output_audio.delta":
                sentence = self._sentences.setdefault(event["item_id"], Sentence())
                for frame in frames_of(base64.b64decode(event["delta"]), self._encoding):
                    sentence.take(read_label(frame))
            case "response.created":
                if self._open is not None:
                    self._note(f"response {event['response']['id']} began while {self._open} had no end")
                self._open = event["response"]["id"]
            case "response.done":
                if event["response"]["id"] != self._open:
                    self._note(f"the end of response {event['response']['id']} while {self._open} was under way")
                self._open = None
                self._done(socket, event["response"])
            case "error":
                self._note(f"error {event['error'].get('code')}: {event['error'].get('message')}")

    def _done(self, socket: ClientConnection, response: dict[str, Any]) -> None:
        for item in response["output"]:
            self._judge(item, complete=response["status"] == "completed")
        if response["status"] == "failed":
            task = asyncio.create_task(self._ask_again(socket))
            self._again.add(task)
            task.add_done_callback(self._again.discard)

    def _judge(self, item: dict[str, Any], *, complete: bool) -> None:
        """Take in a whole message of the agent, or what there is of one that was cut."""
        sentence = self._sentences.pop(item["id"], Sentence())
        for fault in sentence.faults:
            self._note(f"item {item['id']}: {fault}")
        found = _NUMBER.search("".join(part.get("transcript") or "" for part in item["content"]))
        if not complete or item.get("status") != "completed" or found is None:
            self.story.cuts += 1
            return
        number = int(found[1])
        if sentence.complete != [number]:
            self._note(f"the audio of the answer to turn {number} is that of {sentence.complete}")
        self._on_answer(number)

    def _on_answer(self, number: int) -> None:
        turn = next((turn for turn in self.story.turns if turn.number == number), None)
        if turn is None:
            self._note(f"an answer to turn {number}, which was never asked")
            return
        turn.answers += 1
        turn.answered_at = turn.answered_at or time.time()
        if turn is self._turn:
            self._answered.set()

    async def _ask_again(self, socket: ClientConnection) -> None:
        """Ask for the answer that the model could not give."""
        await asyncio.sleep(ASK_AGAIN)
        if self._turn is not None and not self._turn.answers:
            await _send(socket, {"type": "response.create"})


async def _send(socket: ClientConnection, event: dict[str, Any]) -> None:
    await socket.send(msgspec.json.encode(event).decode())
