"""Recognition: a scenario's phrases are told apart, foreign ones are nobody's, and a session follows what was really said."""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Encoding, decode, encode
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.recognition import MOST_WAITING, PhraseRecognizer, RecognitionDesk, phrases_of
from orchestrator.simulator.scenario import load_scenario, parse_scenario, shipped_scenarios
from orchestrator.simulator.speech import Speaker, SpeechRequest
from orchestrator.testing import virtual_clock
from orchestrator.transports import memory_pair
from tests.simulator.support import UNIX_TIME, Recorder, as_base64, quiet
from tests.simulator.test_shipped_scenarios import Client, Talker

PHRASES = [phrase for name in shipped_scenarios() for phrase in phrases_of(load_scenario(name))]
FOREIGN = ["The weather is rather nice today, is it not?", "My dog ate the homework again.", "Can I have a pizza with cheese?"]


@pytest.fixture(scope="module")
def recognizer() -> PhraseRecognizer:
    return PhraseRecognizer(PHRASES)


def said(speaker: Speaker, text: str, encoding: Encoding, voice: str = "alloy", seed: int = 1) -> bytes:
    """A phrase as it comes out of a detector of voices: a little quiet around it, and some noise of the line."""
    audio = quiet(300, encoding) + speaker.render(SpeechRequest(text, voice, encoding=encoding)).audio + quiet(200, encoding)
    samples = decode(audio, encoding) + np.random.default_rng(seed).normal(0, 8, len(audio) // encoding.width)
    return encode(np.clip(samples, -32768, 32767).astype(np.int16), encoding)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_most_phrases_are_recognised_and_none_is_taken_for_another(
    recognizer: PhraseRecognizer, speaker: Speaker, encoding: Encoding
) -> None:
    found = {phrase: recognizer.recognize(said(speaker, phrase, encoding), encoding) for phrase in PHRASES}
    wrong = {phrase: text for phrase, text in found.items() if text not in (phrase, None)}
    assert wrong == {}
    assert sum(text is not None for text in found.values()) >= 0.85 * len(PHRASES)


def test_what_belongs_to_no_scenario_is_not_known(recognizer: PhraseRecognizer, speaker: Speaker) -> None:
    assert [recognizer.recognize(said(speaker, text, Encoding.PCM16), Encoding.PCM16) for text in FOREIGN] == [None] * 3


@pytest.mark.parametrize("encoding", list(Encoding))
def test_noise_silence_and_nothing_are_not_known(recognizer: PhraseRecognizer, encoding: Encoding) -> None:
    noise = np.random.default_rng(3).normal(0, 1500, 2 * encoding.rate).astype(np.int16)
    for audio in (encode(noise, encoding), quiet(1500, encoding), quiet(100, encoding), b""):
        assert recognizer.recognize(audio, encoding) is None


def test_the_answer_does_not_depend_on_what_was_heard_before(recognizer: PhraseRecognizer, speaker: Speaker) -> None:
    audio = said(speaker, "Thank you, goodbye.", Encoding.MULAW, "echo")
    fresh = PhraseRecognizer(PHRASES)
    first = fresh.recognize(audio, Encoding.MULAW)
    loud = np.random.default_rng(3).normal(0, 9000, 16_000).astype(np.int16)
    fresh.recognize(encode(loud, Encoding.MULAW), Encoding.MULAW)
    assert fresh.recognize(audio, Encoding.MULAW) == recognizer.recognize(audio, Encoding.MULAW) == first


def test_a_phrase_comes_back_as_it_was_written_with_names_and_numbers_in_it(speaker: Speaker) -> None:
    phrases = ["Connect me with Xavantha Quillbrook!", "Room 2 0 7, please.", "It's Anna\N{RIGHT SINGLE QUOTATION MARK}s turn."]
    own = PhraseRecognizer(phrases)
    assert [own.recognize(said(speaker, phrase, Encoding.PCM16), Encoding.PCM16) for phrase in phrases] == phrases


def test_threads_may_ask_at_once(recognizer: PhraseRecognizer, speaker: Speaker) -> None:
    phrases = ["Thank you, goodbye.", "Yes, please do that.", "Tell me the story of the lighthouse."] * 3
    audio = [said(speaker, phrase, Encoding.PCM16) for phrase in phrases]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda data: recognizer.recognize(data, Encoding.PCM16), audio)) == phrases


def test_phrases_are_what_callers_say_without_what_is_filled_in() -> None:
    scenario = parse_scenario(
        """
name: x
turns:
  - {heard: One., do: []}
  - {heard: One., do: []}
  - {match: typed only, do: []}
  - {heard: "Something of {audio.seconds} s", do: []}
  - {heard: "?!", do: []}
  - {heard: Two., do: []}
default: {heard: Never mind., do: []}
"""
    )
    assert phrases_of(scenario) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("phrases", "language", "complaint"),
    [([], "en-us", "nothing to recognise"), (["..."], "en", "nothing to recognise"), (["Guten Tag."], "de", "only English")],
)
def test_what_cannot_be_recognised_is_refused(phrases: list[str], language: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        PhraseRecognizer(phrases, language)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"pip install 'realtime-orchestrator\[recognition\]'"):
        PhraseRecognizer(["Hello."])


# --- The desk ---------------------------------------------------------------------------------------------------------


async def test_the_desk_answers_each_turn_once_and_takes_no_more_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    class Slow:
        def recognize(self, audio: bytes, encoding: Encoding) -> str | None:
            return audio.decode()

    got: list[str | None] = []
    done = asyncio.Event()

    def deliver(text: str | None) -> None:
        got.append(text)
        if len(got) == MOST_WAITING + 3:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        desk = RecognitionDesk(Slow(), pool)
        for number in range(MOST_WAITING + 3):
            desk.order(str(number).encode(), Encoding.PCM16, deliver)
        assert got == [], "nothing is delivered from within an order"
        await done.wait()
        assert sorted(text or "" for text in got) == sorted([""] * 3 + [str(number) for number in range(MOST_WAITING)])
        assert "16 spoken turns wait" in caplog.text
        got.clear()
        done.clear()
        for _ in range(MOST_WAITING + 3):
            desk.order(b"again", Encoding.PCM16, deliver)
        await done.wait()


async def test_a_fault_of_the_recogniser_is_logged_without_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def recognize(self, audio: bytes, encoding: Encoding) -> str | None:
            raise RuntimeError(audio.decode())

    found: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.ERROR):
        RecognitionDesk(Broken(), pool).order(b"secret words", Encoding.PCM16, found.set_result)
        assert await found is None
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


# --- A session --------------------------------------------------------------------------------------------------------


def test_a_session_takes_the_turn_that_was_said_and_not_the_next_one(
    recognizer: PhraseRecognizer, speaker: Speaker, recorder: Recorder
) -> None:
    """The caller says goodbye first, which the scenario has last."""

    async def main() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            options = ModelOptions(vad="silero", recognition=True)
            scenario = load_scenario("order_desk")
            machine = SessionMachine(scenario, options, ids, model="gpt-realtime", unix_time=UNIX_TIME)
            desk = SpeechDesk(speaker, pool, RecognitionDesk(recognizer, pool))
            client = Client()
            pair = memory_pair(client, ModelSession(machine, desk, recorder))
            client.leg = pair.client
            client.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
            heard = said(speaker, "Thank you, goodbye.", Encoding.PCM16) + quiet(600)
            client.send("input_audio_buffer.append", audio=as_base64(heard))
            response = await client.response()
            await Talker(client, speaker).understood(scenario.turns[-1])
            pair.client.close()
            await pair.client.wait_closed()
            assert response["output"][0]["content"][0]["transcript"] == "You are welcome. Goodbye!"
            return client.events

    events = virtual_clock.run(main())
    transcripts = [event["transcript"] for event in events if event["type"].endswith("input_audio_transcription.completed")]
    assert transcripts == ["Thank you, goodbye."]
