"""Response sequencing: never two at once, nothing waits for ever, nothing asked for is lost."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.response import (
    ALREADY_ACTIVE,
    CancelResponse,
    CreateResponse,
    GaveUp,
    ResponseCommand,
    ResponseRequest,
    ResponseSequencer,
)
from orchestrator.core.states import ResponseState


def test_a_request_is_sent_at_once_when_nothing_is_under_way() -> None:
    responses = ResponseSequencer()
    assert responses.request(ResponseRequest(), 0.0) == [CreateResponse("orchestrator_response_create_1")]
    assert responses.state is ResponseState.REQUESTED


def test_a_request_waits_for_the_end_of_the_active_response() -> None:
    responses = ResponseSequencer()
    responses.created("resp_1")
    assert responses.request(ResponseRequest(), 0.0) == []
    assert responses.done("resp_other", 1.0) == []
    assert isinstance(responses.done("resp_1", 1.0)[0], CreateResponse)


def test_automatic_requests_that_wait_together_are_one_and_those_with_a_body_are_sent_each() -> None:
    responses = ResponseSequencer()
    responses.created("resp_1")
    for request in (ResponseRequest(), ResponseRequest(), ResponseRequest(body="a"), ResponseRequest(body="b")):
        assert responses.request(request, 0.0) == []
    assert responses.waiting == 3


def test_a_request_that_the_models_own_response_overtook_is_asked_for_again_after_it() -> None:
    responses = ResponseSequencer()
    (create,) = responses.request(ResponseRequest(), 0.0)
    assert isinstance(create, CreateResponse)
    responses.created("resp_by_vad")
    assert responses.refused(create.event_id, ALREADY_ACTIVE, 0.1) == []
    assert responses.state is ResponseState.ACTIVE
    (again,) = responses.done("resp_by_vad", 2.0)
    assert isinstance(again, CreateResponse)
    assert again.event_id != create.event_id


def test_a_request_that_was_served_is_not_asked_for_again() -> None:
    responses = ResponseSequencer()
    responses.request(ResponseRequest(), 0.0)
    responses.created("resp_1")
    assert responses.done("resp_1", 1.0) == []
    assert responses.state is ResponseState.IDLE


def test_a_server_that_does_not_answer_makes_the_request_give_up_and_the_next_one_go() -> None:
    responses = ResponseSequencer(timeout=5.0)
    responses.request(ResponseRequest(), 0.0)
    assert responses.request(ResponseRequest(body="next"), 1.0) == []
    assert responses.deadline == 5.0
    assert responses.expire(4.9) == []
    gave_up, create = responses.expire(5.0)
    assert gave_up == GaveUp("response_timeout", ResponseRequest())
    assert isinstance(create, CreateResponse)
    assert create.body == "next"


def test_a_response_that_never_ends_makes_those_behind_it_give_up() -> None:
    responses = ResponseSequencer(timeout=5.0, wait_timeout=60.0)
    responses.created("resp_1")
    responses.request(ResponseRequest(), 10.0)
    assert responses.deadline == 70.0
    assert responses.expire(70.0) == [GaveUp("response_timeout", ResponseRequest())]
    assert responses.deadline is None


def test_a_refused_request_is_dropped_and_the_next_one_is_sent() -> None:
    responses = ResponseSequencer()
    (create,) = responses.request(ResponseRequest(body="bad"), 0.0)
    responses.request(ResponseRequest(), 0.0)
    assert isinstance(create, CreateResponse)
    gave_up, following = responses.refused(create.event_id, "invalid_value", 0.1)
    assert gave_up == GaveUp("refused", ResponseRequest(body="bad"))
    assert isinstance(following, CreateResponse)


def test_errors_about_something_else_change_nothing() -> None:
    responses = ResponseSequencer()
    responses.request(ResponseRequest(), 0.0)
    assert responses.refused("somebody_elses", "invalid_value", 0.1) == []
    assert responses.refused(None, "invalid_value", 0.1) == []
    assert responses.state is ResponseState.REQUESTED


def test_cancel_is_sent_once_and_only_for_the_response_under_way() -> None:
    responses = ResponseSequencer()
    assert responses.cancel() == []
    responses.created("resp_1")
    assert responses.cancel("resp_2") == []
    (cancel,) = responses.cancel()
    assert isinstance(cancel, CancelResponse)
    assert cancel.response_id == "resp_1"
    assert responses.cancel() == []
    assert responses.done("resp_1", 1.0) == []
    assert responses.state is ResponseState.IDLE


def test_a_cancel_that_came_too_late_leaves_the_end_to_the_response_itself() -> None:
    responses = ResponseSequencer()
    responses.created("resp_1")
    responses.cancel()
    assert responses.refused("orchestrator_response_cancel_1", "response_cancel_not_active", 0.1) == []
    assert responses.active_id == "resp_1"
    responses.done("resp_1", 0.2)
    assert responses.state is ResponseState.IDLE


def test_a_lost_connection_forgets_everything() -> None:
    responses = ResponseSequencer()
    responses.request(ResponseRequest(), 0.0)
    responses.request(ResponseRequest(body=1), 0.0)
    responses.reset()
    assert (responses.state, responses.waiting, responses.deadline, responses.active_id) == (ResponseState.IDLE, 0, None, None)


def test_too_many_waiting_requests_are_refused_not_kept() -> None:
    responses = ResponseSequencer()
    responses.created("resp_1")
    results = [responses.request(ResponseRequest(body=number), 0.0) for number in range(70)]
    assert results[63] == []
    assert results[64] == [GaveUp("overflow", ResponseRequest(body=64))]


class Server:
    """A model that follows the protocol: one response at a time, a second one is refused, now and then one of its own."""

    def __init__(self) -> None:
        self.active: str | None = None
        self.count = 0
        self.inbox: list[tuple[str, str | None, str | None]] = []

    def start(self) -> None:
        self.count += 1
        self.active = f"resp_{self.count}"
        self.inbox.append(("created", self.active, None))

    def take(self, command: ResponseCommand) -> None:
        if isinstance(command, CreateResponse):
            if self.active is None:
                self.start()
            else:
                self.inbox.append(("error", command.event_id, ALREADY_ACTIVE))
        elif isinstance(command, CancelResponse):
            if self.active is None:
                self.inbox.append(("error", command.event_id, "response_cancel_not_active"))
            else:
                self.end()

    def end(self) -> None:
        self.inbox.append(("done", self.active, None))
        self.active = None


@given(st.lists(st.sampled_from(["request", "own", "end", "cancel", "deliver", "deliver", "tick"]), max_size=60))
def test_against_any_server_behaviour_every_request_is_served_or_given_up(actions: list[str]) -> None:
    responses, server, now = ResponseSequencer(timeout=50.0, wait_timeout=500.0), Server(), 0.0
    asked = served = gave_up = 0

    def perform(commands: list[ResponseCommand]) -> None:
        nonlocal gave_up
        for command in commands:
            gave_up += isinstance(command, GaveUp)
            server.take(command)

    def deliver() -> None:
        kind, first, code = server.inbox.pop(0)
        if kind == "created":
            assert first is not None
            responses.created(first)
        elif kind == "done":
            assert first is not None
            perform(responses.done(first, now))
        else:
            perform(responses.refused(first, code, now))

    for action in actions:
        now += 0.01
        if action == "request":
            asked += 1
            perform(responses.request(ResponseRequest(body=asked), now))
        elif action == "own" and server.active is None:
            server.start()
        elif action == "end" and server.active is not None:
            server.end()
        elif action == "cancel":
            perform(responses.cancel())
        elif action == "deliver" and server.inbox:
            deliver()
        elif action == "tick":
            perform(responses.expire(now))
    for _ in range(1000):
        if server.inbox:
            deliver()
        elif server.active is not None:
            server.end()
        else:
            break
    served = asked - gave_up - responses.waiting
    assert responses.waiting == 0
    assert responses.state is ResponseState.IDLE
    assert served >= 0
    assert gave_up == 0


def test_a_request_that_was_overtaken_is_served_with_another_that_waits() -> None:
    responses = ResponseSequencer()
    (create,) = responses.request(ResponseRequest(), 0.0)
    assert isinstance(create, CreateResponse)
    responses.created("resp_by_vad")
    responses.request(ResponseRequest(), 0.1)
    responses.refused(create.event_id, ALREADY_ACTIVE, 0.2)
    # One answer for both: two would be the agent saying it twice.
    assert responses.waiting == 1


def test_a_request_that_is_given_up_is_cancelled_or_forgotten_and_the_next_one_is_not() -> None:
    responses = ResponseSequencer()
    responses.request(ResponseRequest(), 0.0)
    responses.abandon()
    (cancel,) = responses.created("resp_1")
    assert isinstance(cancel, CancelResponse)
    responses.done("resp_1", 1.0)
    responses.abandon()
    responses.request(ResponseRequest(), 2.0)
    assert responses.created("resp_2") == []
