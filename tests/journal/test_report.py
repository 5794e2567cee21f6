"""What people see of calls: everything that matters, and nothing that a terminal would obey."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console, RenderableType

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.journal.audit import audit, rebuild
from orchestrator.journal.entries import Body, TakenOver, ToolAnswered, ToolRequested, ToolStarted
from orchestrator.journal.heads import head_after
from orchestrator.journal.report import printable, render_audit, render_call, render_sessions
from orchestrator.journal.state import CallState
from orchestrator.journal.stores import SessionRow
from tests.journal.writing import CALL, FINISHED, UNIX_TIME, entries

ROW = SessionRow(
    session_id="sess_1",
    channel="twilio",
    epoch=2,
    writer="0123456789abcdef/session-1/4711",
    last_seq=19,
    started_at=UNIX_TIME,
    written_at=UNIX_TIME + 61.4,
    ended=False,
)


def printed(renderable: RenderableType, width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def shown(*bodies: Body) -> str:
    return printed(render_call(*rebuild("s1", entries(*bodies))))


def said(*items: RealtimeItem) -> str:
    return printed(render_call(CallState(session_id="s1"), items)).split("counted: 0")[-1]


def test_a_list_tells_who_owns_each_call() -> None:
    ended = msgspec.structs.replace(ROW, session_id="sess_2", writer="somebody", ended=True, end_code="caller_hung_up")
    head, first, second = printed(render_sessions([ROW, ended])).splitlines()
    assert head.split() == ["session", "state", "channel", "node", "actor", "pid", "epoch", "started", "lasted", "entries"]
    assert first.split()[:7] == ["sess_1", "open", "twilio", "0123456789a…", "session-1", "4711", "2"]
    assert first.split()[-2:] == ["0:01:01", "19"]
    assert second.split()[:5] == ["sess_2", "ended:", "caller_hung_up", "twilio", "somebody"]


def test_a_narrow_terminal_keeps_ids_whole() -> None:
    row = msgspec.structs.replace(ROW, session_id="sess_" + "x" * 21)
    assert row.session_id in printed(render_sessions([row]), width=80)


def test_clocks_that_disagree_make_no_negative_length() -> None:
    assert " 0:00:00 " in printed(render_sessions([msgspec.structs.replace(ROW, written_at=UNIX_TIME - 5)]))


def test_a_call_is_told_in_order() -> None:
    text = shown(*CALL)
    lines = [
        "Call s1",
        "ended: caller_hung_up, by caller (the carrier stopped the stream)",
        "twilio, from 192.0.2.7",
        "Parcels",
        "a2",
        "2, taken over once",
        "10 in, 20 out; responses counted: 1",
        "caller CA1",
        "where is my parcel?",
        'track({"parcel": 7}) = on its way',
        "It is on [cut: 0.7 s heard of 2.0 s]",
    ]
    places = [text.index(line) for line in lines]
    assert places == sorted(places)
    assert "without an answer" not in text


def test_open_tool_calls_say_how_far_they_came() -> None:
    text = shown(*CALL[:7])
    assert "open" in text
    assert 'track({"parcel": 7})  running, may run again, call call_1' in text
    assert "resp_1 is under way" in text
    assert "awaiting approval" in shown(*CALL[:5])
    assert "requested, call call_9" in shown(CALL[0], ToolRequested("call_9", "item_9", "track", "{}"))


@pytest.mark.parametrize("code", ["outcome_unknown", "tool_lost"])
def test_a_call_of_which_nobody_knows_whether_it_took_effect_is_for_the_operator(code: str) -> None:
    pay = ToolRequested("call_9", "item_9", "pay\x1b", '{"sum": 7}')
    text = shown(CALL[0], pay, ToolStarted("call_9"), ToolAnswered("call_9", "unknown", code), TakenOver("x"))
    assert "may have taken effect" in text
    assert 'pay\\x1b({"sum": 7})' in text
    assert f"{code}, " in text
    assert "idempotency key s1:call_9" in text
    # One that may be run again has done nothing that could be doubled.
    harmless = shown(CALL[0], pay, ToolStarted("call_9", idempotent=True), ToolAnswered("call_9", "lost", code))
    assert "taken effect" not in harmless


def test_a_lost_leg_is_told() -> None:
    assert "legs lost  caller" in shown(*CALL[:15])


def test_every_kind_of_item_has_words() -> None:
    text = said(
        SystemMessageItem(item_id="1", content=(InputText("be kind"),)),
        UserMessageItem(item_id="2", content=(InputAudio(), InputImage("data:image/png;base64,AAAA"), InputText("look"))),
        AssistantMessageItem(item_id="3", status="in_progress", content=(AssistantText("I see"),)),
        AssistantMessageItem(item_id="4", status="incomplete", content=(AssistantText("I"),), guardrails=("politeness",)),
        AssistantMessageItem(
            item_id="5", status="completed", content=(AssistantAudio(transcript="all", audio_ms=10, heard_ms=10),)
        ),
        RealtimeToolCallItem(item_id="6", name="look", arguments="{}"),
    )
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    assert lines == [
        "system  be kind",
        "caller  (no words)",
        "        (an image)",
        "        look",
        "agent   I see [not finished]",
        "agent   I [incomplete] [guardrail: politeness]",
        "agent   all",
        "tool    look({}) has no output",
    ]


def test_a_call_without_words_says_so() -> None:
    assert "Nothing was said." in said()


def test_a_journals_checks_are_told_without_a_word_of_the_call() -> None:
    journal = entries(*FINISHED)
    sound = printed(render_audit(audit("s1", head_after(journal[-1]), journal)))
    assert "All checks hold." in sound
    assert "parcel" not in sound
    torn = printed(render_audit(audit("s1", head_after(journal[-1]), journal[:3] + journal[4:])))
    assert "NO   no entry is missing" in torn.replace("          ", "")
    assert "entry 4 is missing" in torn
    assert "Not all checks hold." in torn


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x07", "\x9b31m", "\r", "\u202e", "\u2028", "\x7f", "\ud83d"])
def test_nothing_that_was_said_reaches_the_terminal_as_an_order(bad: str) -> None:
    text = f"before{bad}after [bold]x[/bold]"
    assert bad not in printable(text)
    shown_text = said(UserMessageItem(item_id="1", content=(InputText(text),)))
    assert bad not in shown_text
    assert "before\\" in shown_text
    assert "[bold]x[/bold]" in shown_text


def test_other_writing_is_left_as_it_is() -> None:
    text = "Grüße, 你好, שלום, 👩\u200d🚀\nund weiter"
    assert printable(text) == text
