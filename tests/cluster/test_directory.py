from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.directory import Directory
from orchestrator.cluster.link_messages import ActorSnapshot, GatewaySnapshot, SessionSnapshot


def session(session_id: str, *, actor: str = "session-a-0", epoch: int = 0) -> SessionSnapshot:
    return SessionSnapshot(session_id=session_id, channel="openai", actor_id=actor, state="live", since=1.0, epoch=epoch)


def report(
    node: str, *sessions: SessionSnapshot, incarnation: int = 1, sequence: int = 1, actors: tuple[ActorSnapshot, ...] = ()
) -> GatewaySnapshot:
    return GatewaySnapshot(
        pid=10,
        host="127.0.0.1",
        port=8080,
        ready=True,
        draining=False,
        max_sessions=5,
        handshakes=0,
        pending_heads=0,
        starts=0,
        ends=0,
        refusals=0,
        sessions=sessions,
        actors=actors,
        node=node,
        incarnation=incarnation,
        sequence=sequence,
    )


def owner(directory: Directory, session_id: str) -> str | None:
    place = directory.lookup(session_id)
    return None if place is None else place.node


def test_a_session_is_found_on_the_node_that_reports_it_with_the_process_that_owns_it() -> None:
    directory = Directory()
    actor = ActorSnapshot(actor_id="session-a-0", pid=77, seats=1, used=1)
    directory.receive_report(report("a", session("s1"), actors=(actor,)), now=0.0)
    directory.receive_report(report("b", session("s2", actor="session-b-0")), now=0.0)
    place = directory.lookup("s1")
    assert place is not None
    assert (place.node, place.pid, place.session.session_id) == ("a", 77, "s1")
    assert owner(directory, "s2") == "b"
    assert directory.lookup("s3") is None
    assert len(directory) == 2


def test_a_report_replaces_the_one_before_it() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1"), sequence=1), now=0.0)
    directory.receive_report(report("a", session("s2"), sequence=2), now=1.0)
    assert directory.lookup("s1") is None
    assert owner(directory, "s2") == "a"


def test_a_report_that_a_newer_one_overtook_changes_nothing() -> None:
    directory = Directory()
    assert directory.receive_report(report("a", session("s2"), incarnation=2, sequence=1), now=0.0)
    assert not directory.receive_report(report("a", session("s1"), incarnation=1, sequence=9), now=1.0)
    assert directory.lookup("s1") is None


def test_the_higher_epoch_owns_a_session_that_two_nodes_report() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1", epoch=2)), now=0.0)
    directory.receive_report(report("b", session("s1", epoch=1)), now=5.0)
    assert owner(directory, "s1") == "a"
    assert len(directory) == 1


def test_of_equal_epochs_the_later_report_is_right() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1")), now=0.0)
    directory.receive_report(report("b", session("s1")), now=5.0)
    assert owner(directory, "s1") == "b"


def test_a_forgotten_node_takes_only_its_own_sessions_along() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1"), session("s2")), now=0.0)
    directory.receive_report(report("b", session("s2")), now=0.0)
    lost = directory.forget_node("a")
    assert [entry.session_id for entry in lost] == ["s1"]
    assert owner(directory, "s2") == "b"
    assert directory.forget_node("a") == ()


def test_a_gateway_that_falls_silent_expires() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1")), now=0.0)
    directory.receive_report(report("b"), now=9.0)
    assert directory.expire(now=10.0, max_age=10.0) == {}
    lost = directory.expire(now=10.1, max_age=10.0)
    assert [entry.session_id for entry in lost["a"]] == ["s1"]
    assert [view.node for view in directory.gateways(now=10.1)] == ["b"]


def test_the_view_of_a_gateway_says_how_old_it_is() -> None:
    directory = Directory()
    directory.receive_report(report("a", session("s1")), now=3.0)
    (view,) = directory.gateways(now=5.5)
    assert (view.age, view.sessions, view.ready) == (2.5, 1, True)
    assert msgspec.json.decode(msgspec.json.encode(view))["port"] == 8080


nodes = st.sampled_from(["a", "b", "c"])
contents = st.dictionaries(st.sampled_from(["s1", "s2", "s3", "s4"]), st.integers(0, 3))
reports = st.lists(st.tuples(nodes, contents, st.floats(0.0, 2.0)), max_size=20)


@given(reports)
def test_every_session_of_a_latest_report_is_owned_by_exactly_one_node_that_reported_its_highest_epoch(
    history: list[tuple[str, dict[str, int], float]],
) -> None:
    directory = Directory()
    latest: dict[str, dict[str, int]] = {}
    now = 0.0
    for sequence, (node, content, pause) in enumerate(history):
        now += pause
        sessions = [session(name, epoch=epoch) for name, epoch in content.items()]
        assert directory.receive_report(report(node, *sessions, sequence=sequence), now)
        latest[node] = content
    places = {place.session.session_id: place for place in directory.sessions()}
    assert len(places) == len(directory)
    assert set(places) == {name for content in latest.values() for name in content}
    for name, place in places.items():
        best = max(content[name] for content in latest.values() if name in content)
        assert place.session.epoch == best == latest[place.node][name]
        assert directory.lookup(name) == place


@given(reports)
def test_a_directory_that_forgot_everything_is_whole_after_one_report_from_each_gateway(
    history: list[tuple[str, dict[str, int], float]],
) -> None:
    before, after = Directory(), Directory()
    latest: dict[str, tuple[GatewaySnapshot, float]] = {}
    now = 0.0
    for sequence, (node, content, pause) in enumerate(history):
        now += pause
        sessions = [session(name, epoch=epoch) for name, epoch in content.items()]
        latest[node] = report(node, *sessions, sequence=sequence), now
        before.receive_report(*latest[node])
    for snapshot, received_at in latest.values():
        after.receive_report(snapshot, received_at)
    assert sorted(before.sessions(), key=str) == sorted(after.sessions(), key=str)
