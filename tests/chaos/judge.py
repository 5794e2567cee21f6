"""What a run has shown: every way in which a call was harmed. Pure, so that the judge itself is tested without a deployment."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from tests.chaos.labels import Hearing
from tests.chaos.story import Blow, Effect, Said, Story, Tale, Turn

__all__ = ["Harm", "Kind", "blame", "judge"]

# Seconds after an answer within which a fault may still have to do with what is wrong about the turn.
AFTERMATH = 2.0
# Calls end so; any other reason is the service's.
_GOOD_ENDS = ("caller_hung_up",)


class Kind(enum.Enum):
    """What may happen to a call and must not."""

    LOST_CALL = "lost call"
    LOST_ITEM = "lost item"
    REPEATED_ITEM = "repeated item"
    DISORDER = "disorder"
    DOUBLE_EFFECT = "double side effect"
    LOST_ENTRY = "journal entry lost"
    BAD_JOURNAL = "journal does not hold"
    LOST_AUDIO = "frame lost"
    DOUBLED_AUDIO = "frame doubled"
    BAD_STREAM = "bad stream"


class Harm(msgspec.Struct, frozen=True):
    """One harm: what, to whom, in words, how many of it, and when, in Unix seconds, if that is known."""

    kind: Kind
    call: str
    text: str
    count: int = 1
    since: float | None = None
    until: float | None = None


def judge(
    stories: Sequence[Story],
    tales: Sequence[Tale],
    effects: Sequence[Effect],
    hearings: Sequence[Hearing],
    *,
    journal_lost: int = 0,
    whole: bool = True,
) -> list[Harm]:
    """Compare what callers have noticed with what the journals tell and the tools did. Returns every harm.

    `journal_lost` is what the gateways say that they gave up; `whole`, that no model session has died with what it had heard.
    """
    by_reference = {tale.reference: tale for tale in tales}
    harms: list[Harm] = []
    for story in stories:
        harms += _of_caller(story)
        tale = by_reference.get(story.reference)
        if tale is not None:
            harms += _of_journal(story, tale)
        elif story.began:
            harms.append(Harm(Kind.LOST_ENTRY, story.label, "the journal knows nothing of the call"))
    harms += _of_effects(stories, effects)
    harms += _of_hearings(stories, hearings, whole=whole)
    if journal_lost:
        harms.append(Harm(Kind.LOST_ENTRY, "gateways", f"{journal_lost} entries were given up", journal_lost))
    return harms


def blame(harm: Harm, blows: Iterable[Blow]) -> str:
    """Return the kind of fault that a harm followed: the last one before it was over; "none" where there was none."""
    if harm.since is None:
        return "none"
    until = (harm.until if harm.until is not None else float("inf")) + AFTERMATH
    near = [blow for blow in blows if harm.since - AFTERMATH <= blow.at <= until]
    return max(near, key=lambda blow: blow.at).kind if near else "none"


def _of_caller(story: Story) -> list[Harm]:
    harms = [Harm(Kind.BAD_STREAM, story.label, text) for text in story.faults]
    if story.lost is not None or not story.over:
        last = story.turns[-1].asked_at if story.turns else story.lost_at
        harms.append(Harm(Kind.LOST_CALL, story.label, story.lost or "never began", since=last, until=story.lost_at))
    for turn in story.turns:
        if turn.answers > 1:
            text = f"turn {turn.number} ({turn.what}) was answered {turn.answers} times"
            harms.append(_at(turn, Kind.REPEATED_ITEM, story, text, turn.answers - 1))
        elif not turn.answers and story.lost is None:
            harms.append(_at(turn, Kind.LOST_ITEM, story, f"turn {turn.number} ({turn.what}) was never answered"))
    return harms


def _at(turn: Turn, kind: Kind, story: Story, text: str, count: int = 1) -> Harm:
    return Harm(kind, story.label, text, count, turn.asked_at, turn.answered_at)


def _of_journal(story: Story, tale: Tale) -> list[Harm]:
    harms = [Harm(Kind.BAD_JOURNAL, story.label, text) for text in tale.broken]
    if tale.missing:
        harms.append(Harm(Kind.LOST_ENTRY, story.label, f"{tale.missing} entries are missing", tale.missing))
    if story.over and tale.ended not in _GOOD_ENDS:
        harms.append(Harm(Kind.BAD_JOURNAL, story.label, f"the call ended with {tale.ended}"))
    if story.kind == "conversation":
        harms += _of_history(story, tale.history)
    elif story.lost is None:
        harms += _of_spoken(story, tale.history)
    return harms


def _of_history(story: Story, history: Sequence[Said]) -> list[Harm]:
    """Every turn is there once, in order, and has one complete answer, which stands between it and the next."""
    harms: list[Harm] = []
    turns = {turn.number: turn for turn in story.turns}
    asked = [said.turn for said in history if said.role == "user"]
    answered = [said.turn for said in history if said.role == "assistant" and said.complete]
    for number, turn in turns.items():
        # The one that a lost call was about may never have come so far.
        open_end = story.lost is not None and turn is story.turns[-1]
        for what, numbers in (("the item", asked), ("the answer", answered)):
            count = numbers.count(number)
            if count == 0 and not open_end:
                harms.append(_at(turn, Kind.LOST_ITEM, story, f"{what} of turn {number} is not in the history"))
            elif count > 1:
                text = f"{what} of turn {number} is {count} times in the history"
                harms.append(_at(turn, Kind.REPEATED_ITEM, story, text, count - 1))
    strange = sorted({*asked, *answered} - turns.keys())
    harms += [Harm(Kind.DISORDER, story.label, f"turn {number} is in the history, and was never asked") for number in strange]
    latest = 0
    for said in history:
        if said.turn not in turns:
            continue
        late = said.turn < latest if said.role == "user" else said.complete and said.turn != latest
        if late:
            text = f"the {said.role}'s message of turn {said.turn} stands behind turn {latest}"
            harms.append(_at(turns[said.turn], Kind.DISORDER, story, text))
        latest = max(latest, said.turn) if said.role == "user" else latest
    return harms


def _of_spoken(story: Story, history: Sequence[Said]) -> list[Harm]:
    """What was spoken has no numbers: there are as many complete answers as turns."""
    spoken = len(story.turns)
    users = sum(said.role == "user" for said in history)
    if users < spoken:
        text = f"{spoken} turns were spoken, {users} are in the history"
        return [Harm(Kind.LOST_ITEM, story.label, text, spoken - users)]
    if users > spoken:
        text = f"{spoken} turns were spoken, {users} are in the history"
        return [Harm(Kind.REPEATED_ITEM, story.label, text, users - spoken)]
    return []


def _of_effects(stories: Sequence[Story], effects: Sequence[Effect]) -> list[Harm]:
    calls = {story.reference: story for story in stories}
    by_turn: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for effect in effects:
        by_turn[effect.session_id, effect.tool, effect.turn].append(effect.key)
    harms = []
    for (session_id, tool, number), keys in by_turn.items():
        story = calls.get(session_id)
        label = session_id if story is None else story.label
        # Under one key the other side does it once, so an idempotent tool has had one effect.
        happened = len(keys) if tool == "book" else len(set(keys))
        if happened > 1:
            turn = next((one for one in story.turns if one.number == number), None) if story is not None else None
            text = f"{tool} of turn {number} had {happened} effects, under {len(set(keys))} keys"
            since, until = (None, None) if turn is None else (turn.asked_at, turn.answered_at)
            harms.append(Harm(Kind.DOUBLE_EFFECT, label, text, happened - 1, since, until))
    return harms


def _of_hearings(stories: Sequence[Story], hearings: Sequence[Hearing], *, whole: bool) -> list[Harm]:
    """Within one model session every frame comes once and in order; if all sessions are told of, they have heard everything."""
    harms = []
    for story in stories:
        own = sorted((one for one in hearings if one.caller == story.caller), key=lambda one: one.first)
        for one in own:
            where = f"between frames {one.first} and {one.last} of one model session"
            if one.lost:
                harms.append(Harm(Kind.LOST_AUDIO, story.label, f"{one.lost} {where}", one.lost))
            if one.doubled:
                harms.append(Harm(Kind.DOUBLED_AUDIO, story.label, f"{one.doubled} {where}", one.doubled))
        if whole and story.over and story.frames_sent:
            unheard = _unheard(own, story.frames_sent)
            if unheard:
                harms.append(Harm(Kind.LOST_AUDIO, story.label, f"{unheard} that no model session has heard", unheard))
    return harms


def _unheard(hearings: Sequence[Hearing], sent: int) -> int:
    """Count the frames that are in none of these, which are sorted by their first ones."""
    missing = reached = 0
    for one in hearings:
        missing += max(0, one.first - reached)
        reached = max(reached, one.last + 1)
    return missing + max(0, sent - reached)
