"""Who is here: the session actors linked to this gateway and the sessions that they hold.

Pure bookkeeping of what the links say. Sessions are added when they are given to an actor or announced by one, and removed
when they end; their states are the actors' affair and only mirrored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.cluster.link_messages import ActorSnapshot, Hello, SessionSnapshot
from orchestrator.gateway.links import ActorLink
from orchestrator.gateway.placement import ActorLoad, choose_actor

__all__ = ["Actor", "Roster", "Session"]


@dataclass(slots=True, eq=False)
class Actor:
    """A linked session actor. One that is `silent` left a caller unanswered and has said nothing since."""

    actor_id: str
    pid: int
    seats: int
    link: ActorLink
    sessions: dict[str, Session] = field(default_factory=dict)
    last_given: int = 0
    silent: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """A session, with the actor that has it or had it last.

    `since` is in Unix seconds; `started` says that its caller was answered, `epoch` counts its owners, and
    `cause` is why it needed the latest of them.
    """

    session_id: str
    channel: str
    actor: Actor
    peer: str
    since: float
    state: str = "new"
    started: bool = False
    epoch: int = 1
    cause: str = ""


class Roster:
    """Actors by link and sessions by id."""

    def __init__(self) -> None:
        self._actors: dict[ActorLink, Actor] = {}
        self._sessions: dict[str, Session] = {}
        self._given = 0

    @property
    def actors(self) -> Iterable[Actor]:
        """All linked actors."""
        return self._actors.values()

    def actor_of(self, link: ActorLink) -> Actor | None:
        """Return the actor at the other end of a link, or None before its Hello and after its end."""
        return self._actors.get(link)

    def session(self, session_id: str) -> Session | None:
        """Return a session that has not ended, or None."""
        return self._sessions.get(session_id)

    def session_at(self, link: ActorLink, session_id: str) -> Session | None:
        """Return the session if it is the one at the other end of this link that has it."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.actor is self._actors.get(link) else None

    def join(self, link: ActorLink, hello: Hello, now: float) -> Actor:
        """Add an actor, or the same actor on a new link, with the sessions that it says it holds; `now` is in Unix seconds.

        Sessions that it had before and does not name are still here, without an actor.
        """
        previous = self.actor_named(hello.actor_id)
        if previous is not None:
            self.leave(previous.link)
        actor = Actor(hello.actor_id, hello.pid, hello.seats, link)
        self._actors[link] = actor
        for held in hello.sessions:
            session = self._sessions.get(held.session_id) or Session(held.session_id, held.channel, actor, "", now)
            session.state, session.started, session.epoch = held.state, True, held.epoch
            self.move(session, actor)
        return actor

    def leave(self, link: ActorLink) -> Actor | None:
        """Remove the actor; its sessions, which it still names, stay. None if this link has no actor (any more)."""
        return self._actors.pop(link, None)

    def actor_named(self, actor_id: str) -> Actor | None:
        """Return a linked actor by its id, or None."""
        return next((actor for actor in self._actors.values() if actor.actor_id == actor_id), None)

    def move(self, session: Session, actor: Actor) -> None:
        """Say that an actor has a session now, or is to have it."""
        session.actor.sessions.pop(session.session_id, None)
        session.actor = actor
        self._add(session)

    def choose(self, without: Iterable[Actor] = ()) -> Actor | None:
        """Return the actor that should take the next session, leaving out the silent and those that were tried in vain."""
        tried = {actor.actor_id for actor in without}
        by_id = {actor.actor_id: actor for actor in self._actors.values() if not (actor.silent or actor.actor_id in tried)}
        loads = (ActorLoad(actor.actor_id, actor.seats, len(actor.sessions), actor.last_given) for actor in by_id.values())
        chosen = choose_actor(loads)
        return None if chosen is None else by_id[chosen]

    def give(self, session_id: str, channel: str, actor: Actor, peer: str, now: float) -> Session:
        """Add a session that is being handed to an actor."""
        self._given += 1
        actor.last_given = self._given
        session = Session(session_id, channel, actor, peer, now)
        self._add(session)
        return session

    def _add(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        session.actor.sessions[session.session_id] = session

    def end(self, session: Session) -> None:
        """Remove a session."""
        self._sessions.pop(session.session_id, None)
        session.actor.sessions.pop(session.session_id, None)

    def states(self) -> Counter[str]:
        """Count the sessions by state."""
        return Counter(session.state for session in self._sessions.values())

    def busy_actors(self) -> int:
        """Count the actors that hold a session."""
        return sum(1 for actor in self._actors.values() if actor.sessions)

    def session_snapshots(self) -> tuple[SessionSnapshot, ...]:
        """Describe all sessions."""
        return tuple(
            SessionSnapshot(
                session.session_id, session.channel, session.actor.actor_id, session.state, session.since, session.epoch
            )
            for session in self._sessions.values()
        )

    def actor_snapshots(self) -> tuple[ActorSnapshot, ...]:
        """Describe all actors."""
        return tuple(
            ActorSnapshot(actor.actor_id, actor.pid, actor.seats, len(actor.sessions)) for actor in self._actors.values()
        )

    def __len__(self) -> int:
        return len(self._sessions)
