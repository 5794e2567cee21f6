"""One run: a seed makes a cluster and its faults; it runs, is left in peace, and is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.checks import check_connections, check_end, check_tools
from tests.simulation.cluster import Cluster
from tests.simulation.faults import KINDS, Fault, inject, make_faults, make_shape
from tests.simulation.world import Violation, World

__all__ = ["REACHED", "Outcome", "report", "run", "shortened"]

# Seconds after the last fault in which everything has to come right, and after which nothing changes any more.
PEACE = 36.0
LOOK_EVERY = 2.0


# What many schedules together must have come across; what is not among it was not tried.
REACHED = (
    *(f"fault: {kind}" for kind in KINDS),
    *("recovery: Offer", "recovery: Kill", "recovery: Release", "recovery: EndCaller", "recovery: Forget"),
    *("offer: actor_died", "offer: handed_over", "offer: not_held", "offer: resumed"),
    *("offer: read from the store", "offer: not all is in the store yet", "offer: begins anew"),
    *("resume: ServeHere", "resume: Relay", "resume: TakeOver", "resume: Ask", "resume: Refuse"),
    *("resume: refused session_busy", "resume: refused session_ended", "resume: refused session_recovering"),
    *("resume: refused session_owned", "resume: refused journal_unavailable", "resume: refused resume_timeout"),
    *("caller: ended recovery_failed", "caller: ended not_the_owner", "caller: ended session_ended"),
    *("orphans: Restart", "orphans: Close"),
    *("freeze: Suspect", "freeze: AskDump", "freeze: KillFrozen", "freeze: Trust"),
    *("claim: accepted", "claim: by snapshot", "actor: refused"),
    *("verdict: known", "verdict: stale", "verdict: gap"),
    *("spool: kept", "spool: full", "spool: emptied", "spool: left by a predecessor", "store: answer lost"),
    *("journal: entries lost", "journal: asks for a snapshot"),
    *("tool: runs", "tool: runs again", "tool: outcome unknown", "tool: not started"),
)


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    faults: Sequence[Fault]
    steps: int = 0
    violation: Violation | None = None
    seen: Counter[str] = field(default_factory=Counter)
    trace: list[str] | None = None


def run(seed: int, faults: Sequence[Fault] | None = None, *, trace: bool = False) -> Outcome:
    shape = make_shape(seed)
    if faults is None:
        faults = make_faults(seed, shape)
    world = World(seed, trace=trace)
    cluster = Cluster(world, shape)
    inject(cluster, list(faults))
    outcome = Outcome(seed, faults, seen=world.seen, trace=world.trace)
    try:
        last = max([shape.active, *(fault.at + 2 * fault.duration for fault in faults)])
        world.run(shape.active)
        cluster.calm = True
        world.run(last)
        check_tools(cluster)
        _come_to_rest(cluster, thorough=seed % 4 == 0)
        check_connections(cluster, faults)
    except Violation as violation:
        outcome.violation = violation
    outcome.steps = world.steps
    return outcome


def _nothing_left(cluster: Cluster) -> bool:
    if any(not caller.gone for caller in cluster.callers) or any(node.spool for node in cluster.nodes if node.alive):
        return False
    return not cluster.store.memory.sessions()


def _come_to_rest(cluster: Cluster, *, thorough: bool) -> None:
    """Wait until everything is right, within the bound; some runs go on until its end, since what is right must stay so."""
    world = cluster.world
    end = world.now + PEACE
    while True:
        cluster.silent = False
        world.run(world.now + LOOK_EVERY)
        # Nobody says anything new, and what was said arrives.
        cluster.silent = True
        world.run(world.now + 1.3)
        try:
            check_end(cluster)
        except Violation:
            if world.now >= end or _nothing_left(cluster):
                raise
        else:
            if not thorough or world.now >= end or _nothing_left(cluster):
                return


def shortened(outcome: Outcome) -> Outcome:
    """Leave faults out as long as the same thing still goes wrong."""
    assert outcome.violation is not None
    best = outcome
    again = True
    while again:
        again = False
        for index in range(len(best.faults)):
            tried = run(outcome.seed, [*best.faults[:index], *best.faults[index + 1 :]])
            if tried.violation is not None and tried.violation.name == outcome.violation.name:
                best, again = tried, True
                break
    return best


def report(outcome: Outcome) -> str:
    """Tell a failed run, so that it can be repeated and read."""
    best = shortened(outcome)
    told = run(best.seed, best.faults, trace=True)
    lines = [f"seed {outcome.seed}: {outcome.violation}", f"shape {make_shape(outcome.seed)}", "shortest schedule found:"]
    lines += [f"    {fault}" for fault in best.faults]
    lines += ["what happened:", *(told.trace or [])[-200:], f"-> {told.violation}"]
    return "\n".join(lines)
