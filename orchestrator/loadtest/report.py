"""What a load test found, as data and as a table for people."""

from __future__ import annotations

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.loadtest.usage import ProcessUsage

__all__ = ["Direction", "LoadReport", "render"]


class Direction(msgspec.Struct, frozen=True, kw_only=True):
    """One way through the service. Latency is from the sender's call to the receiver's callback, in milliseconds.

    `unsent` of the dropped ones never left the sender, since the service did not read.
    """

    sent: int
    received: int
    unsent: int
    samples: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def dropped(self) -> int:
        """Payloads that were sent and did not arrive."""
        return self.sent - self.received


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one load test. CPU is in cores: 0.01 is one per cent of one core; memory in megabytes (10**6 bytes).

    The direct ways are those of the same callers without a service between them and the model, measured just before: what
    exceeds their latency is what the service adds.
    """

    channel: str
    url: str
    sessions: int
    sessions_per_actor: int | None
    seconds: float
    connect_seconds: float
    sessions_ok: int
    faults: dict[str, int]
    uplink: Direction
    downlink: Direction
    session_actors: ProcessUsage | None
    gateway: ProcessUsage | None
    load_generator: ProcessUsage
    late_frames: int
    direct_uplink: Direction | None = None
    direct_downlink: Direction | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was lost and every session lived to the end."""
        flowing = self.uplink.received > 0 and self.downlink.received > 0
        return flowing and self.uplink.dropped == self.downlink.dropped == 0 and self.sessions_ok == self.sessions

    def as_json(self) -> bytes:
        """One JSON object, with what is derived written out."""
        document = msgspec.to_builtins(self)
        for name, direction in (("uplink", self.uplink), ("downlink", self.downlink)):
            document[name]["dropped"] = direction.dropped
        actors = self.session_actors
        document["cpu_per_session"] = actors and actors.cpu / self.sessions
        document["uss_mb_per_session"] = actors and actors.uss_mb / self.sessions
        document["uss_growth_mb_per_session"] = actors and actors.uss_growth_mb / self.sessions
        return msgspec.json.encode({"ok": self.ok, **document})


def render(report: LoadReport) -> RenderableType:
    """Lay the report out for a terminal."""
    head = f"{report.sessions} {report.channel} sessions for {report.seconds:.0f} s at 50 frames/s each"
    if report.sessions_per_actor is not None:
        head += f", up to {report.sessions_per_actor} per session actor"
    parts: list[RenderableType] = [Text(head, style="bold"), _flow_table(report)]
    if report.session_actors is not None and report.gateway is not None:
        parts.append(_usage_table(report, report.session_actors, report.gateway))
    if report.late_frames:
        share = report.late_frames / max(1, report.uplink.sent)
        text = f"The load generator itself was late with {report.late_frames} frames ({share:.2%}): latencies include that."
        parts.append(Text(text, style="yellow"))
    parts += [Text(f"{count} x {fault}", style="red") for fault, count in report.faults.items()]
    alive = f"{report.sessions_ok} of {report.sessions} sessions lived to the end"
    verdict = "no frame dropped" if report.uplink.dropped == report.downlink.dropped == 0 else "frames were dropped"
    if not (report.uplink.sent and report.downlink.sent):
        verdict = "not all kinds of frames flowed"
    parts.append(Text(f"{alive}, {verdict}", style="bold green" if report.ok else "bold red"))
    return Group(*parts)


def _flow_table(report: LoadReport) -> Table:
    names = ("direction", "sent", "received", "dropped", "p50 ms", "p99 ms", "direct p50", "p99")
    table = Table(*names, box=None, pad_edge=False)
    ways = (
        ("caller to model", report.uplink, report.direct_uplink),
        ("model to caller", report.downlink, report.direct_downlink),
    )
    for name, way, direct in ways:
        latencies = [way.p50_ms, way.p99_ms, *((direct.p50_ms, direct.p99_ms) if direct else (None, None))]
        written = ["-" if value is None else f"{value:.2f}" for value in latencies]
        table.add_row(name, str(way.sent), str(way.received), str(way.dropped), *written)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _usage_table(report: LoadReport, actors: ProcessUsage, gateway: ProcessUsage) -> Table:
    table = Table(
        "processes", "number", "% of a core", "... per session", "USS MB", "... per session", box=None, pad_edge=False
    )
    for name, usage in (("session actors", actors), ("gateway", gateway)):
        table.add_row(
            name,
            str(usage.processes),
            f"{usage.cpu:.1%}",
            f"{usage.cpu / report.sessions:.2%}",
            f"{usage.uss_mb:.0f}",
            f"{usage.uss_mb / report.sessions:.2f}",
        )
    generator = report.load_generator
    table.add_row("load generator", str(generator.processes), f"{generator.cpu:.1%}", "", f"{generator.uss_mb:.0f}", "")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
