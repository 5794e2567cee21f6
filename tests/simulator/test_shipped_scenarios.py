"""Every scenario that ships is played to its end by a client, typed and spoken: each of its turns can be reached."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import EndReason
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.scenario import Scenario, Turn, load_scenario, shipped_scenarios
from orchestrator.simulator.speech import Speaker, SpeechRequest
from orchestrator.testing import virtual_clock
from orchestrator.transports import Leg, memory_pair
from tests.simulator.support import UNIX_TIME, Recorder, as_base64, quiet

TRANSCRIPTION = "conversation.item.input_audio_transcription"
OUTPUTS: dict[str, Any] = {
    "lookup_order": {"status": "on its way", "carrier": "the parcel service", "eta": "tomorrow"},
    "open_claim": {"number": "two hundred and seven"},
    "find_contract": {"number": "K 12", "ends": "in December"},
    "find_slots": {"slots": ["ten fifteen", "three o'clock"]},
    "find_patient": {"id": "p-88", "name": "Mrs. Carter"},
    "book_slot": {"confirmation": "seven seven four"},
}
FOLDER = Path(__file__).parents[2] / "orchestrator" / "simulator" / "scenarios"


class Client:
    """A client on a leg: sends events, waits for what comes, and answers the calls of tools."""

    def __init__(self) -> None:
        self.leg: Leg | None = None
        self.events: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._read = 0
        self._arrived = asyncio.Event()

    def on_text(self, data: bytes) -> None:
        event = json.loads(data)
        assert event["type"] != "error", event
        self.events.append(event)
        self._arrived.set()

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the API sends no binary messages")

    def on_closed(self, reason: EndReason) -> None:
        assert reason.code == "closed_normally"

    def send(self, type_: str, **members: Any) -> None:
        assert self.leg is not None
        self.leg.send_text(json.dumps({"type": type_, **members}).encode())

    def update(self, **session: Any) -> None:
        self.send("session.update", session={"type": "realtime", **session})

    def add(self, **item: Any) -> None:
        self.send("conversation.item.create", item=item)

    async def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of these types; what comes before it is passed over."""
        while True:
            while self._read < len(self.events):
                event = self.events[self._read]
                self._read += 1
                if event["type"] in types:
                    return event
            self._arrived.clear()
            await self._arrived.wait()

    async def response(self) -> dict[str, Any]:
        response: dict[str, Any] = (await self.until("response.done"))["response"]
        return response

    async def turn(self) -> list[dict[str, Any]]:
        """All responses of one turn: the calls are answered, and the next response is asked for, until there is no call."""
        responses = [await self.response()]
        while calls := [item for item in responses[-1]["output"] if item["type"] == "function_call"]:
            for call in calls:
                self.calls.append((call["name"], json.loads(call["arguments"])))
                output = json.dumps(OUTPUTS.get(call["name"], "done"))
                self.add(type="function_call_output", call_id=call["call_id"], output=output)
            self.send("response.create")
            responses.append(await self.response())
        return responses


class Typist:
    """Plays a scenario in text."""

    session: dict[str, Any] = {"output_modalities": ["text"]}  # noqa: RUF012

    def __init__(self, client: Client, _: Speaker) -> None:
        self._client = client

    async def say(self, text: str) -> None:
        self._client.add(type="message", role="user", content=[{"type": "input_text", "text": text}])
        self._client.send("response.create")

    async def understood(self, turn: Turn) -> None:
        """Nobody writes down what was typed."""


class Talker:
    """Plays a scenario aloud, and leaves it to the endpoint to find out when a turn is over."""

    session: dict[str, Any] = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}  # noqa: RUF012

    def __init__(self, client: Client, speaker: Speaker) -> None:
        self._client = client
        self._speaker = speaker
        self._silence = {"type": "server_vad", "silence_duration_ms": 600}

    async def say(self, text: str) -> None:
        self._client.update(audio={"input": {"turn_detection": self._silence}})
        audio = self._speaker.render(SpeechRequest(text, "coral")).audio
        self._client.send("input_audio_buffer.append", audio=as_base64(quiet(400) + audio + quiet(1000)))

    async def understood(self, turn: Turn) -> None:
        """The transcript, which comes before or after the response."""
        name = f"{TRANSCRIPTION}.failed" if turn.transcription else f"{TRANSCRIPTION}.completed"
        while not (found := [event for event in self._client.events if event["type"] == name]):
            await self._client.until(f"{TRANSCRIPTION}.failed", f"{TRANSCRIPTION}.completed")
        if turn.transcription is None:
            assert turn.heard in [event["transcript"] for event in found]


def texts(responses: list[dict[str, Any]]) -> list[str]:
    contents = [item["content"] for response in responses for item in response["output"] if item["type"] == "message"]
    return [part.get("text") or part.get("transcript", "") for content in contents for part in content]


def check(turn: Turn, responses: list[dict[str, Any]], calls: list[tuple[str, dict[str, Any]]]) -> None:
    """What was said and called is this turn, whole or cut off as it is to be."""
    last = responses[-1]
    assert [name for name, _ in calls] == [step.call for step in turn.do if step.call is not None]
    said = texts(responses)
    wanted = [re.sub(r"\\\{.*?\\\}", ".+", re.escape(step.say)) for step in turn.do if step.say is not None]
    if turn.end is None:
        assert [response["status"] for response in responses] == ["completed"] * len(responses)
        assert len(said) == len(wanted)
        assert all(re.fullmatch(pattern, text) for pattern, text in zip(wanted, said, strict=True)), said
        return
    assert last["status"] == turn.end.status
    details = last["status_details"]
    assert (details.get("reason") or "", (details.get("error") or {}).get("code", "")) == (turn.end.reason, turn.end.code)
    assert len("".join(said).split()) == turn.end.after


async def play(scenario: Scenario, client: Client, style: type[Typist | Talker], speaker: Speaker) -> None:
    names = dict.fromkeys(step.call for turn in scenario.turns for step in turn.do if step.call is not None)
    tools: list[dict[str, Any]] = [{"type": "function", "name": name, "parameters": {}} for name in names]
    client.update(tools=tools, **style.session)
    person = style(client, speaker)
    if scenario.greeting is not None:
        client.send("response.create")
        check(scenario.greeting, await client.turn(), [])
    for turn in scenario.turns:
        client.calls.clear()
        await person.say(turn.heard)
        check(turn, await client.turn(), client.calls)
        await person.understood(turn)
    await person.say("Colourless green ideas sleep furiously.")
    follows = scenario.turns[0] if scenario.repeat and isinstance(person, Talker) else scenario.default
    check(follows, await client.turn(), [])


def run(scenario: Scenario, scene: Callable[[Client], Awaitable[None]], recorder: Recorder, speaker: Speaker) -> Client:
    """Let a scene happen between a client and a session of the scenario, on virtual time."""

    async def main() -> Client:
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            machine = SessionMachine(scenario, ModelOptions(), ids, model="gpt-realtime", unix_time=UNIX_TIME)
            client = Client()
            pair = memory_pair(client, ModelSession(machine, SpeechDesk(speaker, pool), recorder))
            client.leg = pair.client
            await scene(client)
            pair.client.close()
            await pair.client.wait_closed()
        return client

    return virtual_clock.run(main())


@pytest.mark.parametrize("style", [Typist, Talker])
@pytest.mark.parametrize("name", shipped_scenarios())
def test_it_plays_to_its_end(name: str, style: type[Typist | Talker], recorder: Recorder, speaker: Speaker) -> None:
    scenario = load_scenario(name)
    run(scenario, lambda client: play(scenario, client, style, speaker), recorder, speaker)


@pytest.mark.parametrize("name", shipped_scenarios())
def test_it_says_what_it_is(name: str) -> None:
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    assert 20 < len(load_scenario(name).description) < 110


def test_the_monologue_lasts_long_and_can_be_interrupted(recorder: Recorder, speaker: Speaker) -> None:
    async def scene(client: Client) -> None:
        talker = Talker(client, speaker)
        await talker.say("Tell me the story of the lighthouse.")
        await client.until("response.output_audio.delta")
        await asyncio.sleep(1.0)
        await talker.say("Stop, that is enough.")
        cut = await client.response()
        assert (cut["status"], cut["status_details"]["reason"]) == ("cancelled", "turn_detected")
        assert texts(await client.turn()) == ["All right, I stop here."]

    scenario = load_scenario("monologue")
    run(scenario, scene, recorder, speaker)
    story = scenario.turns[0].do[0].say
    assert speaker.render(SpeechRequest(str(story), encoding=Encoding.MULAW)).duration_ms > 60_000


def test_the_arguments_of_calls_are_what_the_caller_said(recorder: Recorder, speaker: Speaker) -> None:
    def played(name: str, *said: str) -> list[tuple[str, dict[str, Any]]]:
        async def scene(client: Client) -> None:
            names = {step.call for turn in load_scenario(name).turns for step in turn.do if step.call}
            client.update(
                tools=[{"type": "function", "name": tool, "parameters": {}} for tool in sorted(names)], **Typist.session
            )
            for text in said:
                await Typist(client, speaker).say(text)
                await client.turn()

        return run(load_scenario(name), scene, recorder, speaker).calls

    assert ("open_claim", {"object": "bicycle"}) in played("triage", "Somebody has broken my bicycle")
    assert ("find_contract", {"name": "Ada King"}) in played("triage", "when does the contract of Ada King end")
    assert played("appointment", "I would like an appointment on Friday, my name is Ada King", "yes") == [
        ("find_slots", {"day": "Friday"}),
        ("find_patient", {"name": "Ada King"}),
        ("book_slot", {"day": "Friday", "slot": "ten fifteen", "patient": "p-88"}),
    ]


def test_calls_that_stand_together_are_made_in_one_response(recorder: Recorder, speaker: Speaker) -> None:
    scenario = load_scenario("appointment")

    async def scene(client: Client) -> None:
        tools = ("find_slots", "find_patient")
        client.update(tools=[{"type": "function", "name": name, "parameters": {}} for name in tools], **Typist.session)
        await Typist(client, speaker).say(scenario.turns[0].heard)
        first, second = await client.turn()
        assert [item["type"] for item in first["output"]] == ["message", "function_call", "function_call"]
        assert "ten fifteen" in texts([second])[0]

    run(scenario, scene, recorder, speaker)
