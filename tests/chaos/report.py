"""What a run has shown, as a table for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tests.chaos.judge import Harm, Kind, blame
from tests.chaos.story import Blow, Story, Tale

__all__ = ["Gaps", "Outcome", "gaps_after", "quantile", "render", "show"]

_LOST = (Kind.LOST_ITEM,)
_REPEATED = (Kind.REPEATED_ITEM, Kind.DISORDER)
_MOST_HARMS = 40
# Seconds after a fault within which a model's connection that it has cost is known to be lost.
_NOTICED = 1.0


class Outcome(msgspec.Struct, kw_only=True):
    """Everything that is known at the end. `impossible` are kinds of faults of which none could be injected."""

    seed: int
    seconds: float
    stories: list[Story]
    tales: list[Tale]
    blows: list[Blow]
    harms: list[Harm]
    impossible: list[str] = []
    not_covered: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether nobody was harmed, and everything was tried."""
        return not self.harms and not self.impossible and bool(self.stories)


class Gaps(msgspec.Struct, kw_only=True):
    """Seconds after the faults of one kind: until another owner had the call, until its model was live again, and until its
    caller, who asks all the time, was answered anything.
    """

    owner: list[float] = []
    model: list[float] = []
    silence: list[float] = []


def gaps_after(blows: Iterable[Blow], stories: Sequence[Story], tales: Sequence[Tale]) -> Gaps:
    """Measure the gaps after these faults."""
    gaps = Gaps()
    by_reference = {tale.reference: tale for tale in tales}
    for blow in blows:
        for tale in tales:
            if tale.session_id in blow.sessions:
                gaps.owner += _next(tale.taken_over, blow.at)
                gaps.model += _next(tale.model_live, blow.at)
            elif any(blow.at <= lost <= blow.at + _NOTICED for lost in tale.model_lost):
                gaps.model += _next(tale.model_live, blow.at)
        for story in stories:
            # A phone hears nothing while nobody speaks, and a proxy that stalls adds silences of its own.
            if story.kind == "conversation" and story.path == "direct":
                tale_of_it = by_reference.get(story.reference)
                if not blow.sessions or (tale_of_it is not None and tale_of_it.session_id in blow.sessions):
                    gaps.silence += [silence for at, silence in story.silences if at == blow.at]
    return gaps


def _next(times: Iterable[float], at: float) -> list[float]:
    """Return the seconds to the first of these times that is not before `at`: none, or one."""
    later = [time - at for time in times if time >= at]
    return [min(later)] if later else []


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank quantile; None of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def render(outcome: Outcome) -> RenderableType:
    """Lay the outcome out for a terminal."""
    parts: list[RenderableType] = [_calls(outcome), _table(outcome)]
    parts += [Text(f"  ! {harm.kind.value}: {harm.call}: {harm.text}", style="red") for harm in outcome.harms[:_MOST_HARMS]]
    if len(outcome.harms) > _MOST_HARMS:
        parts.append(Text(f"  ... and {len(outcome.harms) - _MOST_HARMS} more", style="red"))
    parts += [Text(f"  ! no fault of kind {kind} could be injected", style="red") for kind in outcome.impossible]
    parts += [Text(f"  not covered: {text}", style="dim") for text in outcome.not_covered]
    verdict = "everybody stayed in the conversation" if outcome.ok else "NOT all is well"
    parts.append(Text(f"seed {outcome.seed}: {verdict}", style="bold green" if outcome.ok else "bold red"))
    return Group(*parts)


def _calls(outcome: Outcome) -> Text:
    stories = outcome.stories
    turns = sum(len(story.turns) for story in stories)
    lost = sum(story.lost is not None for story in stories)
    frames, cuts = sum(story.frames_sent for story in stories), sum(story.cuts for story in stories)
    silence = max((story.longest_silence for story in stories), default=0.0)
    counts = Counter(f"{story.kind} {story.path}" for story in stories)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return Text(
        f"\n{len(stories)} calls ({kinds}), {lost} lost, {turns} turns, {cuts} answers cut and given again, "
        f"{frames} frames spoken, {len(outcome.blows)} faults in {outcome.seconds:.0f} s, "
        f"longest silence of a caller's socket {silence:.2f} s"
    )


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("fault")
    heads = (
        "injected",
        "calls before>after",
        "sockets kept",
        "new owner ms",
        "model live ms",
        "silence ms",
        "lost",
        "repeated",
    )
    for head in (*heads, "double effects", "entries lost", "other"):
        table.add_column(head, justify="right")
    kinds = list(dict.fromkeys(blow.kind for blow in outcome.blows))
    blamed: dict[str, list[Harm]] = {}
    for harm in outcome.harms:
        blamed.setdefault(blame(harm, outcome.blows), []).append(harm)
    for kind in (*kinds, *(["none"] if "none" in blamed else [])):
        table.add_row(*_row(kind, [blow for blow in outcome.blows if blow.kind == kind], blamed.get(kind, []), outcome))
    return table


def _row(kind: str, blows: Sequence[Blow], harms: Sequence[Harm], outcome: Outcome) -> list[str]:
    gaps = gaps_after(blows, outcome.stories, outcome.tales)
    before = sum(blow.alive_before for blow in blows)
    after = sum(blow.alive_after if blow.alive_after is not None else blow.alive_before for blow in blows)
    back = [blow.recovered - blow.at for blow in blows if blow.recovered is not None]
    kept = [blow for blow in blows if blow.sockets_kept is not None]
    sockets = f"{sum(blow.sockets_kept or 0 for blow in kept)}/{sum(len(blow.sessions) for blow in kept)}" if kept else ""
    counted = (_LOST, _REPEATED, (Kind.DOUBLE_EFFECT,), (Kind.LOST_ENTRY,))
    others = [harm for harm in harms if not any(harm.kind in group for group in counted)]
    figures = [sum(harm.count for harm in harms if harm.kind in group) for group in counted]
    return [
        *(kind, str(len(blows)), f"{before}>{after}", sockets),
        *map(_figures, (back, gaps.owner, gaps.model, gaps.silence)),
        *map(str, figures),
        str(len(others)),
    ]


def _figures(values: Sequence[float]) -> str:
    """Write p50/p99/max in milliseconds."""
    if not values:
        return "-"
    return "/".join(f"{(quantile(values, share) or 0.0) * 1000:.0f}" for share in (0.5, 0.99, 1.0))


def show(outcome: Outcome) -> None:
    """Print it."""
    Console(width=170).print(render(outcome))
