"""Rules broken on purpose: what the simulation must notice, or it would notice nothing.

Each breaks one rule of the code under test, in place, for as long as the patch lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.channels.journalling import Journals
from orchestrator.cluster.link_messages import JournalAcknowledged, JournalRefused
from orchestrator.cluster.orphans import Orphans
from orchestrator.gateway.recovery import Recovery
from orchestrator.gateway.recovery_commands import Kill, Offer, Release
from orchestrator.journal import heads
from orchestrator.journal.commit import Acknowledge, CommitState, GroupCommit
from orchestrator.journal.copies import CallCopies
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Head, Verdict, judge
from orchestrator.journal.stores import base
from orchestrator.journal.tail import JournalTail
from tests.simulation.actor import ActorTwin, CallTwin

__all__ = ["MUTATIONS"]

Patch = pytest.MonkeyPatch


def stale_epochs_are_accepted(patch: Patch) -> None:
    """The store writes whatever comes next in number, whoever owns the call."""

    def lenient(head: Head | None, entry: Entry) -> Verdict:
        verdict = judge(head, entry)
        continues = head is not None and entry.seq == head.last_seq + 1 and not head.ended
        return Verdict.WRITE if verdict is Verdict.STALE and continues else verdict

    patch.setattr(base, "judge", lenient)


def claims_need_not_name_their_predecessor(patch: Patch) -> None:
    """The rule as it was: a number and an epoch that fit are enough."""
    patch.setattr(heads, "_predecessor", lambda entry: "")


def a_refused_owner_goes_on(patch: Patch) -> None:
    """An owner does not listen when it is told that it is none."""
    genuine = ActorTwin.on_message

    def deaf(self: ActorTwin, link: Any, message: Any) -> None:
        if not isinstance(message, JournalRefused):
            genuine(self, link, message)

    patch.setattr(ActorTwin, "on_message", deaf)


def entries_are_acknowledged_before_they_are_kept(patch: Patch) -> None:
    """The group commit says that entries are in the store when it has only heard of them."""
    genuine = GroupCommit.submit

    def hasty(self: GroupCommit, entries: Sequence[Entry], now: float) -> list[Any]:
        early = [Acknowledge(entry.session_id, entry.writer, entry.seq, durable=True) for entry in entries]
        return [*early, *genuine(self, entries, now)]

    patch.setattr(GroupCommit, "submit", hasty)


def nothing_is_sent_again(patch: Patch) -> None:
    """An owner takes what it sent for kept, so a new gateway is given nothing."""
    patch.setattr(Journals, "send_open", lambda self: None)


def new_entries_overtake_the_spool(patch: Patch) -> None:
    """While the spool is emptied, new entries go to the store directly."""
    genuine = GroupCommit._next

    def impatient(self: GroupCommit, now: float) -> list[Any]:
        state = self.state
        if state is CommitState.CATCHING_UP and self._waiting:
            self.state = CommitState.STORE
        return genuine(self, now)

    patch.setattr(GroupCommit, "_next", impatient)


def a_frozen_owner_is_not_killed(patch: Patch) -> None:
    """Its sessions are given to others while its process may wake up."""

    def forgetful(self: Recovery, actor_id: str, now: float) -> list[Any]:
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        actor.linked, actor.dead = False, True
        self._links[actor.pid] = 0
        return [*self._if_over(actor, now), *self._pump(now)]

    patch.setattr(Recovery, "frozen", forgetful)


def a_broken_link_is_a_dead_process(patch: Patch) -> None:
    """Nobody makes sure that the process behind a link that ended is gone."""
    genuine = Recovery.link_lost

    def rash(self: Recovery, actor_id: str, pid: int, now: float) -> list[Any]:
        return [*genuine(self, actor_id, pid, now), *self.gone(actor_id, pid, now)]

    patch.setattr(Recovery, "link_lost", rash)


def a_kill_is_as_good_as_a_death(patch: Patch) -> None:
    """What a dead process had sent before is not read before its sessions are offered."""
    genuine = Recovery.gone

    def deaf(self: Recovery, actor_id: str, pid: int, now: float) -> list[Any]:
        actor = self._process(actor_id, pid)
        if actor is not None:
            self._links[pid] = 0
        return genuine(self, actor_id, pid, now)

    patch.setattr(Recovery, "gone", deaf)


def tools_start_when_their_start_is_on_disk(patch: Patch) -> None:
    """A tool that must not run twice runs as soon as the node's disk has its start."""
    genuine = ActorTwin._on_acknowledged

    def eager(self: ActorTwin, message: JournalAcknowledged) -> None:
        genuine(self, JournalAcknowledged(message.session_id, message.writer, message.seq, durable=True))

    patch.setattr(ActorTwin, "_on_acknowledged", eager)


def running_tools_are_run_again(patch: Patch) -> None:
    """After a takeover every open tool call is run, whatever had become of it."""

    def careless(self: ActorTwin, call: CallTwin, tool: Any) -> None:
        self._run(call, tool.call_id, idempotent=tool.name == "look_up")

    patch.setattr(ActorTwin, "_go_on_with", careless)


def a_claim_on_disk_is_enough_for_a_stranger(patch: Patch) -> None:
    """A session of another node is served before the store has the claim."""
    genuine = Recovery._pump

    def hasty(self: Recovery, now: float) -> list[Any]:
        return [
            Offer(command.session_id, command.actor_id, command.cause, command.begun, durable=False)
            if isinstance(command, Offer)
            else command
            for command in genuine(self, now)
        ]

    patch.setattr(Recovery, "_pump", hasty)


def a_copy_survives_what_was_given_up(patch: Patch) -> None:
    """A new owner is given what the journal will never have."""
    patch.setattr(CallCopies, "lost", lambda self, entries: None)


def whoever_dies_takes_the_marks_of_its_successor(patch: Patch) -> None:
    """What is known of all writers of a call is forgotten with one of them: as it was."""
    genuine = GroupCommit.forget
    patch.setattr(GroupCommit, "forget", lambda self, session_id, writer=None: genuine(self, session_id))


def the_probe_is_due_while_the_disk_works(patch: Patch) -> None:
    """The timer that has run out is set again at once, until the disk has answered: as it was."""
    patch.setattr(GroupCommit, "due", property(lambda self: self._probe_at))


def a_lost_claim_stays_lost(patch: Patch) -> None:
    """A snapshot does not stand for the claim that was lost before it: as it was."""
    genuine = JournalTail.resume

    def silent(self: JournalTail, now: float) -> Entry | None:
        self._after = ""
        return genuine(self, now)

    patch.setattr(JournalTail, "resume", silent)


def what_came_from_disk_is_not_acknowledged_again(patch: Patch) -> None:
    """Nobody hears that what was on disk is in the store: as it was."""
    genuine = GroupCommit.written

    def silent(self: GroupCommit, verdicts: Sequence[Verdict], now: float) -> list[Any]:
        catching_up = self.state is CommitState.CATCHING_UP
        commands = genuine(self, verdicts, now)
        return [command for command in commands if not (catching_up and isinstance(command, Acknowledge))]

    patch.setattr(GroupCommit, "written", silent)


def an_owner_of_old_is_not_told(patch: Patch) -> None:
    """An actor that claims a session with a lower epoch is left in its belief."""
    patch.setattr(Recovery, "_release", lambda self, actor, session_id: [])


def what_an_owner_of_old_says_is_believed(patch: Patch) -> None:
    """An actor may be offered a session that it was told to drop, before it has said that it did."""
    genuine = Recovery._pump

    def trusting(self: Recovery, now: float) -> list[Any]:
        for actor in self._actors.values():
            actor.letting_go.clear()
        return genuine(self, now)

    patch.setattr(Recovery, "_pump", trusting)


def a_poisonous_call_is_never_ended(patch: Patch) -> None:
    """A call may kill as many owners as it likes."""
    genuine = Recovery._orphan

    def patient(self: Recovery, call: Any, cause: str, now: float) -> list[Any]:
        call.crashes.clear()
        return genuine(self, call, cause, now)

    patch.setattr(Recovery, "_orphan", patient)


def orphans_are_left_alone(patch: Patch) -> None:
    """The supervisor does nothing about calls that nobody serves."""
    patch.setattr(Orphans, "_act", lambda self, *_: [])


def silence_is_death(patch: Patch) -> None:
    """The supervisor ends whatever is not reported at once."""
    genuine = Orphans.__init__

    def impatient(self: Orphans, limits: Any = None) -> None:
        genuine(self, limits)
        quick = {"settle": 0.0, "gone_after": 0.0, "unseen_after": 0.0, "resume_grace": 0.0}
        self._limits = type(limits)(**quick)

    patch.setattr(Orphans, "__init__", impatient)


def nobody_is_offered_an_orphan(patch: Patch) -> None:
    """Sessions whose owner died wait for ever."""
    genuine = Recovery._pump

    def idle(self: Recovery, now: float) -> list[Any]:
        return [command for command in genuine(self, now) if isinstance(command, Kill | Release)]

    patch.setattr(Recovery, "_pump", idle)


def tenures_share_a_name(patch: Patch) -> None:
    """A process that has a call for the second time writes under the same name as the first time."""

    def same(self: ActorTwin, session_id: str) -> str:
        del session_id
        return f"{self.node.name}/{self.actor_id}/{self.pid}"

    patch.setattr(ActorTwin, "_writer_of", same)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (
    stale_epochs_are_accepted,
    claims_need_not_name_their_predecessor,
    a_refused_owner_goes_on,
    entries_are_acknowledged_before_they_are_kept,
    nothing_is_sent_again,
    new_entries_overtake_the_spool,
    a_frozen_owner_is_not_killed,
    a_broken_link_is_a_dead_process,
    a_kill_is_as_good_as_a_death,
    tools_start_when_their_start_is_on_disk,
    running_tools_are_run_again,
    a_claim_on_disk_is_enough_for_a_stranger,
    a_copy_survives_what_was_given_up,
    whoever_dies_takes_the_marks_of_its_successor,
    the_probe_is_due_while_the_disk_works,
    a_lost_claim_stays_lost,
    what_came_from_disk_is_not_acknowledged_again,
    an_owner_of_old_is_not_told,
    what_an_owner_of_old_says_is_believed,
    a_poisonous_call_is_never_ended,
    orphans_are_left_alone,
    silence_is_death,
    nobody_is_offered_an_orphan,
    tenures_share_a_name,
)
