"""The floor, and the wait for the first audio."""

from orchestrator.core.states import TurnState
from orchestrator.core.turn import FirstAudio, Turn


def test_first_audio_is_measured_from_the_end_of_speech_once_per_turn() -> None:
    turn = Turn()
    turn.speech_started()
    turn.speech_stopped(10.0)
    turn.response_started()
    assert turn.audio(10.7) == FirstAudio(10.7 - 10.0)
    assert turn.audio(10.8) is None
    assert turn.state is TurnState.AGENT


def test_a_greeting_has_no_wait() -> None:
    turn = Turn()
    turn.response_started()
    assert turn.audio(1.0) == FirstAudio(None)
    assert turn.audio(1.1) is None


def test_each_turn_has_its_first_audio() -> None:
    turn = Turn()
    for _ in range(2):
        turn.response_started()
        assert turn.audio(1.0) is not None
        turn.response_ended()


def test_the_end_of_a_sound_that_took_no_floor_is_no_end_of_a_turn() -> None:
    turn = Turn()
    turn.response_started()
    turn.audio(1.0)
    turn.speech_stopped(2.0)
    assert turn.audio(2.1) is None
    turn.response_ended()
    turn.response_started()
    assert turn.audio(9.0) == FirstAudio(None)


def test_late_audio_does_not_take_the_floor_from_a_caller_who_barged_in() -> None:
    turn = Turn()
    turn.response_started()
    turn.audio(1.0)
    turn.speech_started()
    turn.audio(1.1)
    turn.response_ended()
    assert turn.state is TurnState.CALLER


def test_speech_that_goes_on_measures_from_its_last_end() -> None:
    turn = Turn()
    turn.speech_started()
    turn.speech_stopped(1.0)
    turn.speech_started()
    turn.speech_stopped(5.0)
    assert turn.audio(5.5) == FirstAudio(0.5)
