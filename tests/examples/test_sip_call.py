"""One call of the SIP example on virtual time: what a tool asks for happens when the caller has heard of it, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from examples._transcript import Transcript
from examples.sip.agent import Line, reception, run_config
from examples.sip.call import FAILED, LAST_WORDS_SECONDS, SipCall
from orchestrator.errors import CallControlError
from orchestrator.realtime import OpenAIRealtimeSIPModel, RealtimeRunner
from orchestrator.realtime.calls import RealtimeCalls
from orchestrator.testing import virtual_clock
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint

END, PERSON = ("call_1", "end_call", "{}"), ("call_1", "transfer_to_person", "{}")


@dataclass
class NotedLine(Line):
    """A line whose requests to the provider are written down, with their time."""

    done: list[tuple[str, float]] = field(default_factory=list)
    refuse: bool = False

    async def hang_up(self) -> None:
        self._note("hang_up")

    async def connect_person(self) -> None:
        self._note("connect_person")

    def _note(self, what: str) -> None:
        self.done.append((what, asyncio.get_running_loop().time()))
        if self.refuse:
            raise CallControlError("refer was refused with 500", 500)


Scene = Callable[[ScriptedEndpoint, NotedLine], Awaitable[None]]


def play(scene: Scene, *, person: str | None = "tel:+15550199", refuse: bool = False) -> tuple[NotedLine, list[str]]:
    """Hold a call in which the scene happens, and then the caller hangs up; return what was asked for, and the transcript."""
    lines: list[str] = []

    async def call() -> NotedLine:
        endpoint = ScriptedEndpoint()
        line = NotedLine("rtc_1", RealtimeCalls("unused"), person, refuse=refuse)
        runner = RealtimeRunner(reception, model=lambda: OpenAIRealtimeSIPModel(dial=endpoint.dial), config=run_config)
        async with await runner.run(context=line, model_config={"call_id": "rtc_1", "headers": {}}) as session:
            task = asyncio.create_task(SipCall(session, line, Transcript("[1]", lines.append)).run())
            await endpoint.settle()
            await scene(endpoint, line)
            await endpoint.settle()
            endpoint.cut()
            await task
        return line

    return virtual_clock.run(call()), lines


async def say(endpoint: ScriptedEndpoint, response_id: str, words: str = "Goodbye.") -> None:
    """Let the agent say something, up to the moment when the provider begins to play it."""
    endpoint.start_response(response_id)
    endpoint.send("output_audio_buffer.started", response_id=response_id)
    content = [{"type": "output_audio", "transcript": words}]
    item = {"id": f"item_{response_id}", "type": "message", "role": "assistant", "status": "completed", "content": content}
    endpoint.send("response.output_item.done", response_id=response_id, output_index=0, item=item)
    endpoint.end_response(response_id)
    await endpoint.settle()


def test_the_agent_speaks_first_and_an_abrupt_end_is_how_calls_end() -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        greeting = endpoint.last("response.create")["response"]
        assert "Greet the caller" in greeting["instructions"]
        await say(endpoint, "resp_1", "Good evening.")

    line, lines = play(scene)
    assert lines == ["[1] Reception: Good evening.", "[1] over"]
    assert line.done == []


@pytest.mark.parametrize(("tool", "step"), [(END, "hang_up"), (PERSON, "connect_person")])
def test_the_step_is_taken_when_the_words_about_it_were_heard(tool: tuple[str, str, str], step: str) -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        endpoint.call_tools(tool)
        # Words before it may still be playing, and their end is not what is waited for.
        endpoint.send("output_audio_buffer.started", response_id="resp_1")
        await asyncio.sleep(0.1)
        endpoint.send("output_audio_buffer.stopped", response_id="resp_1")
        await say(endpoint, "resp_2")
        assert line.done == []
        await asyncio.sleep(2)
        endpoint.send("output_audio_buffer.stopped", response_id="resp_2")
        await endpoint.settle()
        assert [name for name, _ in line.done] == [step]
        # Once is enough.
        endpoint.send("output_audio_buffer.stopped", response_id="resp_2")

    line, lines = play(scene)
    ((name, at),) = line.done
    assert name == step
    assert at == pytest.approx(2.1, abs=0.2)
    assert f"[1]   [{step}]" in lines


@pytest.mark.parametrize("how", ["cleared", "cancelled"])
def test_a_caller_who_has_something_else_to_say_keeps_the_line(how: str) -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        endpoint.call_tools(END)
        await asyncio.sleep(0.1)
        endpoint.start_response("resp_2")
        if how == "cleared":
            endpoint.send("output_audio_buffer.started", response_id="resp_2")
            endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
            endpoint.send("output_audio_buffer.cleared", response_id="resp_2")
        endpoint.end_response("resp_2", status="cancelled")
        await say(endpoint, "resp_3", "Yes, please?")
        endpoint.send("output_audio_buffer.stopped", response_id="resp_3")
        await asyncio.sleep(LAST_WORDS_SECONDS * 2)

    assert play(scene)[0].done == []


def test_without_the_words_the_step_is_taken_all_the_same_after_a_while() -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        endpoint.call_tools(END)
        await asyncio.sleep(0.1)
        endpoint.start_response("resp_2")
        endpoint.end_response("resp_2", status="failed")
        # That something happens meanwhile does not put it off.
        for _ in range(30):
            await asyncio.sleep(1)
            endpoint.send("rate_limits.updated", rate_limits=[])

    ((name, at),) = play(scene)[0].done
    assert name == "hang_up"
    assert at == pytest.approx(LAST_WORDS_SECONDS, abs=0.5)


def test_when_nobody_can_be_reached_the_agent_is_told() -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        endpoint.call_tools(PERSON)
        await asyncio.sleep(0.1)
        await say(endpoint, "resp_2")
        endpoint.send("output_audio_buffer.stopped", response_id="resp_2")
        await endpoint.settle()
        assert endpoint.last("response.create")["response"] == {"instructions": FAILED}
        await say(endpoint, "resp_3", "I am sorry.")

    line, lines = play(scene, refuse=True)
    assert [name for name, _ in line.done] == ["connect_person"]
    assert "[1]   [error: refer was refused with 500]" in lines
    assert lines[-2:] == ["[1] Reception: I am sorry.", "[1] over"]


@pytest.mark.parametrize(("person", "offered"), [("sip:desk@hotel.example", True), (None, False)])
def test_a_person_is_offered_only_where_there_is_one(person: str | None, offered: bool) -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        names = [tool["name"] for tool in endpoint.last("session.update")["session"]["tools"]]
        assert ("transfer_to_person" in names) == offered

    play(scene, person=person)


def test_keys_are_written_down() -> None:
    async def scene(endpoint: ScriptedEndpoint, line: NotedLine) -> None:
        endpoint.send("input_audio_buffer.dtmf_event_received", event="9", received_at=1_750_000_000)

    assert play(scene)[1] == ["[1]   [key 9]", "[1] over"]
