"""What the checklist's tests share: a raw client that sees every frame as it came, and speech that takes no time to make."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.server import SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from tests.simulator.support import UNIX_TIME, Driver, tone, types

JUDGES = Path(__file__).parents[2] / "judges"
PATIENCE = 30.0
KEY = {"Authorization": "Bearer sk-test"}
MODEL = "?model=gpt-realtime"
# Nothing is gained by waiting in a test.
HASTY = ModelOptions(timing=Timing(first_output=0.0, pace=0.0, text_interval=0.0), transcription_delay=0.0)
# What the first spoken or typed turn of the usual scenario is answered with.
QUESTION, ANSWER = "first question", "The first answer has quite a few words in it."

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}} for name in ("one", "two")
]
CALLS = parse_scenario(
    """
name: calls
turns:
  - heard: both
    do: [{say: One moment.}, {call: one, arguments: {key: "a long enough value for several deltas"}}, {call: two}, {say: Done.}]
default: {do: [{say: Nothing.}]}
"""
)

Event = Mapping[str, Any]


class ToneSpeaker(Speaker):
    """Speech that is at hand at once; its length follows the text."""

    def cached(self, request: SpeechRequest) -> Utterance | None:
        return tone(request)

    def render(self, request: SpeechRequest) -> Utterance:
        return tone(request)


class Clock:
    """The Unix time of a server, as the test sets it."""

    def __init__(self) -> None:
        self.now = UNIX_TIME + 0.5

    def __call__(self) -> float:
        return self.now


class Raw:
    """A client that is no more than its socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[str] = []

    async def send(self, type_: str, **members: Any) -> None:
        await self.connection.send(json.dumps({"type": type_, **members}))

    async def recv(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            frame = await self.connection.recv()
        assert isinstance(frame, str), "the API sends text frames only"
        self.frames.append(frame)
        event: dict[str, Any] = json.loads(frame)
        return event

    async def until(self, last: str) -> list[dict[str, Any]]:
        """All events up to the first of this type."""
        events = [await self.recv()]
        while events[-1]["type"] != last:
            events.append(await self.recv())
        return events

    async def alone(self) -> None:
        """Raise if anything comes that was not asked for."""
        await self.send("input_audio_buffer.clear")
        assert (await self.recv())["type"] == "input_audio_buffer.cleared"


@asynccontextmanager
async def opened(server: SimulatorServer, query: str = MODEL, **more: Any) -> AsyncIterator[Raw]:
    """A socket of its own, with a key unless `additional_headers` say otherwise."""
    chosen: dict[str, Any] = {"additional_headers": KEY, "max_size": None, **more}
    async with asyncio.timeout(PATIENCE), connect(server.url + query, **chosen) as connection:
        yield Raw(connection)


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **more}


def course(events: Sequence[Event]) -> list[str]:
    """The types of events, in order, with deltas of one kind that stand together counted once."""
    names = types(events)
    return [name for index, name in enumerate(names) if not (name.endswith(".delta") and names[index - 1 : index] == [name])]


def joined(events: Iterable[Event], type_: str, **where: Any) -> str:
    """The deltas of this type, put together; `where` names members that they must have."""
    return "".join(event["delta"] for event in events if event["type"] == type_ and where.items() <= dict(event).items())


def when(driver: Driver, type_: str) -> list[float]:
    """The times at which events of this type came."""
    return [time for event, time in zip(driver.events, driver.times, strict=True) if event["type"] == type_]


def members(value: Any) -> Iterable[tuple[str, Any]]:
    """Every member of a JSON value, however deep."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name, inner
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)


def functions(path: Path) -> list[str]:
    """The names of the functions of a test module, in order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def judged_by(name: str) -> list[str]:
    """What an official client, run by one of the judges' modules, is seen to do."""
    return [name for name in functions(JUDGES / f"{name}.py") if name.startswith("test_")]
