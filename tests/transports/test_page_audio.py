"""The ring of caller audio behaves like a list with numbers, whatever the process that held it did in the end."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.transports.session_page import SessionPage
from tests.transports.crashing import dying_after, new_page, reopened
from tests.transports.support import untimed

# Twice this is a whole memory page, so the ring has no room to spare.
LIMIT = 2048

# An operation: what is pushed, or the distance from the end before which all is dropped.
operations = st.one_of(
    st.builds(lambda letter, size: letter * size, st.sampled_from("AB+/=ü\udc80"), st.integers(0, 700)), st.integers(0, 6)
)
# What one message does, and when, if ever, its owner dies over it.
messages = st.lists(st.tuples(st.lists(operations, max_size=12), st.booleans(), st.none() | st.integers(0, 400)), max_size=10)


class Model:
    """The same, on a list."""

    def __init__(self) -> None:
        self.end = 0
        self.held: list[tuple[int, str]] = []

    def copy(self) -> Model:
        model = Model()
        model.end, model.held = self.end, list(self.held)
        return model

    def apply(self, operation: str | int) -> None:
        if isinstance(operation, int):
            self.held = [entry for entry in self.held if entry[0] >= self.end - operation]
            return
        self.held.append((self.end, operation))
        self.end += 1
        while sum(4 + len(payload.encode(errors="surrogatepass")) for _, payload in self.held) > LIMIT:
            self.held.pop(0)

    @property
    def first(self) -> int:
        return self.held[0][0] if self.held else self.end


def apply(page: SessionPage, operation: str | int) -> None:
    if isinstance(operation, int):
        page.audio.drop_before(page.audio.end - operation)
    else:
        page.audio.push(operation)


def state(page: SessionPage) -> tuple[int, int, list[str]]:
    return page.audio.first, page.audio.end, list(page.audio.payloads(0))


def expected(model: Model) -> tuple[int, int, list[str]]:
    return model.first, model.end, [payload for _, payload in model.held]


@untimed
@given(messages)
def test_a_message_is_in_the_ring_whole_or_not_at_all(given_messages: list[tuple[list[str | int], bool, int | None]]) -> None:
    page, model = new_page(audio_bytes=LIMIT), Model()
    for done, staged, dies in given_messages:
        states = [model]
        with dying_after(dies) as died:
            page.staging = staged
            for operation in done:
                apply(page, operation)
            page.staging = False
            page.commit()
        for operation in done:
            states.append(states[-1].copy())
            states[-1].apply(operation)
        if died[0]:
            page = reopened(page)
            if staged:
                states = [states[0], states[-1]]
            model = next((candidate for candidate in states if expected(candidate) == state(page)), states[-1])
        else:
            model = states[-1]
        assert state(page) == expected(model)
        other = SessionPage.open(os.dup(page.fileno()))
        assert state(other) == expected(model)
        other.close()
    page.close()


@untimed
@given(st.integers(-2, 25))
def test_payloads_are_read_from_any_number_on(start: int) -> None:
    page = new_page(audio_bytes=10_000)
    for number in range(20):
        page.audio.push(str(number))
    page.audio.drop_before(5)
    assert list(page.audio.payloads(start)) == [str(number) for number in range(max(5, start), 20)]
    page.close()


def test_a_payload_larger_than_all_the_room_takes_everything_with_it() -> None:
    page = new_page(audio_bytes=LIMIT)
    page.audio.push("small")
    page.audio.push("x" * LIMIT)
    assert state(page) == (2, 2, [])
    page.audio.push("after")
    assert state(page) == (2, 3, ["after"])
    page.close()


def test_a_long_call_holds_no_more_memory_than_its_window_and_a_piece() -> None:
    page = new_page(audio_bytes=1 << 20)
    payload = "A" * 1000
    for _ in range(5000):
        page.audio.push(payload)
        page.audio.drop_before(page.audio.end - 40)
    assert list(page.audio.payloads(0)) == [payload] * 40
    assert os.fstat(page.fileno()).st_blocks * 512 < 160 * 1024
    page = reopened(page)
    page.audio.push("b")
    assert list(page.audio.payloads(0)) == [payload] * 40 + ["b"]
    page.close()
