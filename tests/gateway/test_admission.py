"""The cap holds whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.errors import IllegalTransitionError
from orchestrator.gateway.admission import Admission, Slot

LIMIT = 3
IDS = st.sampled_from(["a", "b", "c", "d", "e"])


class AdmissionMachine(RuleBasedStateMachine):
    """Admission against a model: a dictionary of slots."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(LIMIT)
        self.model: dict[str, Slot] = {}

    @rule(session=IDS)
    def reserve(self, session: str) -> None:
        if session in self.model:
            with pytest.raises(IllegalTransitionError):
                self.admission.reserve(session)
            return
        expected = len(self.model) < LIMIT and not self.admission.draining
        assert self.admission.admits is expected
        assert self.admission.reserve(session) is expected
        if expected:
            self.model[session] = Slot.RESERVED

    @rule(session=IDS)
    def bind(self, session: str) -> None:
        if self.model.get(session) is not Slot.RESERVED:
            with pytest.raises(IllegalTransitionError):
                self.admission.bind(session)
            return
        self.admission.bind(session)
        self.model[session] = Slot.BOUND

    @rule(session=IDS)
    def restore(self, session: str) -> None:
        self.admission.restore(session)
        self.model[session] = Slot.BOUND

    @rule(session=IDS)
    def release(self, session: str) -> None:
        assert self.admission.release(session) is self.model.pop(session, None)

    @precondition(lambda self: len(self.model) == LIMIT)
    @rule()
    def drain(self) -> None:
        self.admission.draining = True

    @invariant()
    def counts_are_right(self) -> None:
        assert self.admission.in_use == len(self.model)
        assert self.admission.handshakes == sum(slot is Slot.RESERVED for slot in self.model.values())
        assert self.admission.is_full is (len(self.model) >= LIMIT)


TestAdmission = AdmissionMachine.TestCase


def test_a_live_call_is_kept_above_the_cap_but_nobody_new_comes_in() -> None:
    admission = Admission(1)
    admission.restore("a")
    admission.restore("b")
    assert admission.in_use == 2
    assert not admission.reserve("c")
    admission.release("a")
    assert not admission.reserve("c")
    admission.release("b")
    assert admission.reserve("c")
