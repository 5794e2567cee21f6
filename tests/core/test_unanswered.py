"""What was asked and not answered."""

from __future__ import annotations

from orchestrator.core.unanswered import MAX_WISHES, Unanswered
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types


def message(item_id: str) -> types.MessageItem:
    return types.MessageItem(id=item_id, role="user", content=[types.InputTextPart(text="x")])


def create(item_id: str, event_id: str | None = None) -> client.ConversationItemCreate:
    return client.ConversationItemCreate(event_id=event_id, item=message(item_id))


def ids(unanswered: Unanswered) -> list[str]:
    return [
        str(getattr(wish, "item_id", None) or getattr(getattr(wish, "item", None), "id", "-")) for _, wish in unanswered.wishes
    ]


def test_an_answer_settles_its_wish_and_all_before_it() -> None:
    unanswered = Unanswered()
    unanswered.sent(create("a"), 3)
    unanswered.sent(client.ConversationItemDelete(item_id="x"), 5)
    unanswered.sent(create("b"), 7)
    unanswered.sent(client.ConversationItemRetrieve(item_id="a"), 7)
    assert [frame for frame, _ in unanswered.wishes] == [3, 5, 7, 7]
    unanswered.receive(server.ConversationItemAdded(item=message("other")))
    assert ids(unanswered) == ["a", "x", "b", "a"]
    unanswered.receive(server.ConversationItemDeleted(item_id="x"))
    assert ids(unanswered) == ["b", "a"]
    unanswered.receive(server.ConversationItemAdded(item=message("b")))
    unanswered.receive(server.ConversationItemRetrieved(item=message("a")))
    assert len(unanswered) == 0


def test_a_refusal_is_an_answer() -> None:
    unanswered = Unanswered()
    unanswered.sent(create("a", "mine"))
    unanswered.receive(server.ErrorEvent(error=types.ErrorDetails(type="x", message="no", event_id="other")))
    assert len(unanswered) == 1
    unanswered.receive(server.ErrorEvent(error=types.ErrorDetails(type="x", message="no", event_id="mine")))
    assert len(unanswered) == 0


def test_responses_beside_the_conversation_are_wishes_and_those_in_it_are_not() -> None:
    unanswered = Unanswered()
    unanswered.sent(client.ResponseCreate())
    unanswered.sent(client.InputAudioBufferCommit())
    assert len(unanswered) == 0
    unanswered.sent(client.ResponseCreate(response=types.ResponseCreateParams(conversation="none")))
    unanswered.receive(server.ResponseCreated(response=types.Response(id="r", status="in_progress", conversation_id="conv")))
    assert len(unanswered) == 1
    unanswered.receive(server.ResponseCreated(response=types.Response(id="r", status="in_progress", conversation_id=None)))
    assert len(unanswered) == 0


def test_there_is_a_bound() -> None:
    unanswered = Unanswered()
    for number in range(MAX_WISHES + 5):
        unanswered.sent(create(f"i{number}"))
    assert unanswered.full
    assert ids(unanswered)[0] == "i5"
