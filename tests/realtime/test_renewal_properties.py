"""Connections that break at any moment: what was said is as if they had not, but for answers that were cut."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.items import AssistantMessageItem, RealtimeItem
from orchestrator.errors import LegConnectError
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.testing import virtual_clock
from tests.realtime.reading import Reader
from tests.realtime.renewals import SILENCE, VOICE, World, check_memory, renewal, say, session_of, shown

# A model that speaks slower than it could: more of what it says is under way at any moment.
OPTIONS = ModelOptions(timing=Timing(pace=2.0), transcription_delay=0.6)


class Break(NamedTuple):
    """After so many events of the server since the last break the line is cut, before or after the event has arrived."""

    events: int
    arrives: bool
    # How many connections are refused before there is one again.
    refusals: int


class Outcome(NamedTuple):
    history: list[tuple[str, str]]
    breaks: int


def converse(breaks: Sequence[Break]) -> Outcome:
    return virtual_clock.run(_converse(list(breaks)))


async def _converse(breaks: list[Break]) -> Outcome:
    with ThreadPoolExecutor(1) as pool:
        world = World(pool, options=OPTIONS, connect_seconds=0.05)
        counted = done = refusals = 0

        def on_frame(event: dict[str, Any]) -> None:
            nonlocal counted, done, refusals
            counted += 1
            if done < len(breaks) and counted >= breaks[done].events and event["type"] != "session.created":
                refusals = breaks[done].refusals
                world.cut_soon(0.001 if breaks[done].arrives else 0.0)
                done += 1
                counted = 0

        def on_dial(url: str) -> None:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise LegConnectError(f"cannot connect to {url}")

        world.on_frame = on_frame
        world.on_dial = on_dial
        async with session_of(world, renewal()) as session:
            reader = Reader(session)
            await say(session, (400, SILENCE), (800, VOICE), (1200, SILENCE))
            await quiet(session, reader)
            await session.send_message("thank you")
            await quiet(session, reader)
            await say(session, (400, SILENCE), (800, VOICE), (3000, SILENCE))
            # Into the answer.
            await say(session, (800, VOICE), (1200, SILENCE))
            await quiet(session, reader)
            assert reader.error is None
            assert [event.error for event in reader.of("error")] == []
            check_memory(world, session)
            check_whole(session.history)
            return Outcome(whole(session.history), done)


async def quiet(session: Any, reader: Reader) -> None:
    """Wait until there is a connection and nothing happens any more, as a caller waits for an answer."""
    before = -1
    while before != len(reader.events) or session.active_response is not None or not session.model._leg:
        before = len(reader.events)
        await asyncio.sleep(8)


def whole(history: Sequence[RealtimeItem]) -> list[tuple[str, str]]:
    """What was said, without answers that were cut. What follows one is told as "...": this model forgets what it began."""
    said: list[tuple[str, str]] = []
    cut = False
    for item, (who, text) in zip(history, shown(history), strict=True):
        if isinstance(item, AssistantMessageItem) and item.status != "completed":
            cut = True
            continue
        said.append((who, "..." if cut and who == "assistant" else text))
        cut = False
    return said


def check_whole(history: Sequence[RealtimeItem]) -> None:
    for item in history:
        assert not isinstance(item, AssistantMessageItem) or item.status in ("completed", "incomplete")


@functools.cache
def undisturbed() -> list[tuple[str, str]]:
    return converse([]).history


BREAKS = st.lists(st.builds(Break, st.integers(1, 45), st.booleans(), st.integers(0, 2)), min_size=1, max_size=4)


@settings(max_examples=60)
@given(BREAKS)
def test_what_was_said_is_as_if_no_connection_had_broken(breaks: list[Break]) -> None:
    outcome = converse(breaks)
    assert outcome.breaks
    wanted = undisturbed()
    assert [who for who, _ in outcome.history] == [who for who, _ in wanted]
    for (who, words), (_, others) in zip(outcome.history, wanted, strict=True):
        # Words that were on their way when the connection broke are lost; the model has the turn as audio.
        assert words == others or words == "..." or (who == "user" and words == "")
