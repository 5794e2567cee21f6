"""Who is here, by what the links say."""

from __future__ import annotations

from orchestrator.cluster.link_messages import FromGateway, HeldSession, Hello
from orchestrator.errors import EndReason
from orchestrator.gateway.roster import Roster


class Link:
    """The gateway's end of a link that leads nowhere."""

    def offer(self, message: FromGateway, fds: tuple[int, ...] = ()) -> bool:
        return False

    def send(self, message: FromGateway, fds: tuple[int, ...] = ()) -> None: ...

    def close(self, reason: EndReason) -> None: ...


def hello(actor_id: str, *held: str, seats: int = 2) -> Hello:
    return Hello(actor_id, 7, seats, tuple(HeldSession(session, "twilio", "live") for session in held))


def test_a_given_session_is_found_until_it_ends() -> None:
    roster, link = Roster(), Link()
    actor = roster.join(link, hello("a"), 0.0)
    assert roster.choose() is actor is roster.actor_named("a")
    session = roster.give("s1", "openai", actor, "peer", 5.0)
    assert roster.session("s1") is session
    assert roster.session_at(link, "s1") is session
    assert roster.session_at(Link(), "s1") is None
    assert roster.states() == {"new": 1}
    assert roster.busy_actors() == 1
    assert roster.session_snapshots()[0].since == 5.0
    roster.end(session)
    roster.end(session)
    assert len(roster) == 0
    assert roster.busy_actors() == 0


def test_actors_take_turns() -> None:
    roster = Roster()
    for name in "abc":
        roster.join(Link(), hello(name, seats=1), 0.0)
    order = []
    for number in range(6):
        actor = roster.choose()
        assert actor is not None
        order.append(actor.actor_id)
        roster.end(roster.give(f"s{number}", "openai", actor, "", 0.0))
    assert sorted(order[:3]) == ["a", "b", "c"]
    assert order[:3] == order[3:]


def test_an_actor_that_leaves_leaves_its_sessions_for_others() -> None:
    roster, link = Roster(), Link()
    roster.join(link, hello("a", "s1", "s2"), 0.0)
    other = roster.join(Link(), hello("b", "s3"), 0.0)
    gone = roster.leave(link)
    assert gone is not None
    assert set(gone.sessions) == {"s1", "s2"}
    assert roster.leave(link) is None
    assert len(roster) == 3
    session = roster.session("s1")
    assert session is not None
    assert roster.session_at(link, "s1") is None
    roster.move(session, other)
    assert set(other.sessions) == {"s1", "s3"}
    assert set(gone.sessions) == {"s2"}


def test_an_actor_on_a_new_link_keeps_what_it_still_holds() -> None:
    roster, old, new = Roster(), Link(), Link()
    roster.join(old, hello("a", "s1", "s2"), 1.0)
    roster.join(new, hello("a", "s2", "s3"), 2.0)
    since = {snapshot.session_id: snapshot.since for snapshot in roster.session_snapshots()}
    assert since == {"s1": 1.0, "s2": 1.0, "s3": 2.0}
    assert roster.leave(old) is None
    assert roster.session_at(new, "s2") is not None
    assert roster.session_at(new, "s1") is None
    assert len(roster.actor_snapshots()) == 1


def test_a_session_that_two_actors_announce_belongs_to_the_later() -> None:
    roster = Roster()
    first = roster.join(Link(), hello("a", "s1"), 0.0)
    second = roster.join(Link(), hello("b", "s1"), 0.0)
    session = roster.session("s1")
    assert session is not None
    assert session.actor is second
    assert (first.sessions, set(second.sessions)) == ({}, {"s1"})


def test_those_tried_in_vain_are_left_out() -> None:
    roster = Roster()
    roster.join(Link(), hello("a"), 0.0)
    first = roster.choose()
    assert first is not None
    assert roster.choose([first]) is None


def test_a_silent_actor_is_not_chosen() -> None:
    roster, link = Roster(), Link()
    roster.join(link, hello("a"), 0.0)
    actor = roster.actor_of(link)
    assert actor is not None
    actor.silent = True
    assert roster.choose() is None
    # The same process on a new link has spoken.
    roster.join(Link(), hello("a"), 0.0)
    assert roster.choose() is not None
