"""Every metric of the product: its name, type, help, labels and buckets, and who counts it.

The constants are the catalogue's keys; a constant is the exposed name without its prefix, in capitals. Two processes must not
count the same thing, so each entry names the one that does. No label carries a session id, a caller or free text.
"""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = [
    "ACCEPT_SECONDS",
    "AUDIO_FRAMES_DROPPED_TOTAL",
    "AUDIO_FRAMES_TOTAL",
    "BARGE_IN_SECONDS",
    "CATALOGUE",
    "FIRST_AUDIO_SECONDS",
    "INTERRUPTIONS_TOTAL",
    "JOURNAL_ENTRIES_TOTAL",
    "JOURNAL_LOST_TOTAL",
    "JOURNAL_REFUSED_TOTAL",
    "JOURNAL_SPOOLED",
    "JOURNAL_WAITING",
    "MODEL_CONNECT_SECONDS",
    "MODEL_ENDPOINT_HEALTH",
    "MODEL_RENEWALS_TOTAL",
    "MODEL_RENEWAL_SECONDS",
    "RECOVERIES_TOTAL",
    "RECOVERY_SECONDS",
    "REFUSALS_TOTAL",
    "SESSIONS",
    "SESSION_ACTORS",
    "SESSION_ENDS_TOTAL",
    "SESSION_STARTS_TOTAL",
    "TELEMETRY_REJECTED_TOTAL",
    "TOOLS_UNCONFIRMED_TOTAL",
    "TOOL_CALLS_TOTAL",
    "TOOL_SECONDS",
    "WIRE_ERRORS_TOTAL",
    "WIRE_UNKNOWN_EVENTS_TOTAL",
    "Kind",
    "Label",
    "Spec",
]


class Kind(Enum):
    """The Prometheus types that are used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Label(msgspec.Struct, frozen=True):
    """One label of a metric.

    `values` are exposed at zero from the start, so that a rate over them is right from the first scrape. Where `closed`, no
    other value is accepted.
    """

    name: str
    values: tuple[str, ...] = ()
    closed: bool = False


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `buckets` are upper bounds in the metric's unit, ascending, without the infinite one."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label names, in the order in which values are stored."""
        return tuple(label.name for label in self.labels)


_PREFIX = "orchestrator_"

# Counted by the gateway, from its own doings and the node link.
SESSIONS = _PREFIX + "sessions"
SESSION_ACTORS = _PREFIX + "session_actors"
SESSION_STARTS_TOTAL = _PREFIX + "session_starts_total"
SESSION_ENDS_TOTAL = _PREFIX + "session_ends_total"
REFUSALS_TOTAL = _PREFIX + "refusals_total"
ACCEPT_SECONDS = _PREFIX + "accept_seconds"
RECOVERIES_TOTAL = _PREFIX + "recoveries_total"
RECOVERY_SECONDS = _PREFIX + "recovery_seconds"
TELEMETRY_REJECTED_TOTAL = _PREFIX + "telemetry_rejected_total"

# Counted by the session actor, sent as deltas.
FIRST_AUDIO_SECONDS = _PREFIX + "first_audio_seconds"
BARGE_IN_SECONDS = _PREFIX + "barge_in_seconds"
MODEL_CONNECT_SECONDS = _PREFIX + "model_connect_seconds"
MODEL_ENDPOINT_HEALTH = _PREFIX + "model_endpoint_health"
MODEL_RENEWALS_TOTAL = _PREFIX + "model_renewals_total"
MODEL_RENEWAL_SECONDS = _PREFIX + "model_renewal_seconds"
TOOL_SECONDS = _PREFIX + "tool_seconds"
TOOL_CALLS_TOTAL = _PREFIX + "tool_calls_total"
TOOLS_UNCONFIRMED_TOTAL = _PREFIX + "tools_unconfirmed_total"
INTERRUPTIONS_TOTAL = _PREFIX + "interruptions_total"
AUDIO_FRAMES_TOTAL = _PREFIX + "audio_frames_total"
AUDIO_FRAMES_DROPPED_TOTAL = _PREFIX + "audio_frames_dropped_total"
WIRE_UNKNOWN_EVENTS_TOTAL = _PREFIX + "wire_unknown_events_total"
WIRE_ERRORS_TOTAL = _PREFIX + "wire_errors_total"
JOURNAL_ENTRIES_TOTAL = _PREFIX + "journal_entries_total"
JOURNAL_WAITING = _PREFIX + "journal_waiting_entries"
JOURNAL_SPOOLED = _PREFIX + "journal_spooled_entries"
JOURNAL_LOST_TOTAL = _PREFIX + "journal_lost_entries_total"
JOURNAL_REFUSED_TOTAL = _PREFIX + "journal_refused_writers_total"

_CHANNEL = Label("channel", ("openai", "twilio"), closed=True)
_DIRECTION = Label("direction", ("in", "out"), closed=True)
_SIDE = Label("side", ("caller", "model"), closed=True)
_OUTCOMES = ("ok", "failed", "timeout", "lost", "cancelled")

_SPECS = (
    Spec(
        name=SESSIONS,
        kind=Kind.GAUGE,
        help="Sessions that hold a slot, by state.",
        labels=(Label("state", ("new", "connecting", "live", "renewing", "detached", "draining")),),
    ),
    Spec(
        name=SESSION_ACTORS,
        kind=Kind.GAUGE,
        help="Session actors linked to this gateway: free ones hold no session.",
        labels=(Label("state", ("free", "busy"), closed=True),),
    ),
    Spec(name=SESSION_STARTS_TOTAL, kind=Kind.COUNTER, help="Sessions whose caller was answered with 101.", labels=(_CHANNEL,)),
    Spec(
        name=SESSION_ENDS_TOTAL,
        kind=Kind.COUNTER,
        help="Sessions that had started and ended, by the code of their end reason.",
        labels=(_CHANNEL, Label("reason")),
    ),
    Spec(
        name=RECOVERIES_TOTAL,
        kind=Kind.COUNTER,
        help="Sessions that went on with another owner, by why they had lost the one before.",
        labels=(Label("cause"),),
    ),
    Spec(
        name=RECOVERY_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From the news that a session had no owner to the next one's reading of what its caller sends.",
        labels=(Label("cause"),),
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0),
    ),
    Spec(
        name=REFUSALS_TOTAL,
        kind=Kind.COUNTER,
        help="Connections turned away before a session had started.",
        labels=(Label("reason", ("capacity", "no_session_actor", "actor_silent", "head_timeout", "invalid_api_key")),),
    ),
    Spec(
        name=ACCEPT_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From accepting the connection to the 101 written.",
        buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
    ),
    Spec(
        name=TELEMETRY_REJECTED_TOTAL,
        kind=Kind.COUNTER,
        help="Series in an actor's delta that this gateway's catalogue does not know, as between two versions.",
    ),
    Spec(
        name=FIRST_AUDIO_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From the end of the caller's speech to the first agent audio sent.",
        buckets=(0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0),
    ),
    Spec(
        name=BARGE_IN_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From the model's notice that the caller speaks to the clear written.",
        buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    ),
    Spec(
        name=MODEL_CONNECT_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From dialling the model endpoint to an open leg.",
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0),
    ),
    Spec(
        name=MODEL_ENDPOINT_HEALTH,
        kind=Kind.GAUGE,
        help="Session actors that use the endpoint, those whose circuit is open counted 0 and those that try it again 0.5.",
        labels=(Label("endpoint"),),
    ),
    Spec(
        name=MODEL_RENEWALS_TOTAL,
        kind=Kind.COUNTER,
        help="Connections to a model that were made anew after a loss (renewed), beforehand (swapped), or not (failed).",
        labels=(Label("cause", ("connection_lost", "age")), Label("outcome", ("renewed", "swapped", "failed"), closed=True)),
    ),
    Spec(
        name=MODEL_RENEWAL_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From the loss of a connection to a model to the next one in use.",
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
    ),
    Spec(
        name=TOOL_SECONDS,
        kind=Kind.HISTOGRAM,
        help="From asking for a tool call to its result.",
        labels=(Label("tool"), Label("outcome", _OUTCOMES)),
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    ),
    Spec(name=JOURNAL_ENTRIES_TOTAL, kind=Kind.COUNTER, help="Journal entries that session actors sent."),
    Spec(name=JOURNAL_WAITING, kind=Kind.GAUGE, help="Journal entries that are in neither the store nor the spool yet."),
    Spec(name=JOURNAL_SPOOLED, kind=Kind.GAUGE, help="Journal entries on this node's disk that the store does not have yet."),
    Spec(name=JOURNAL_LOST_TOTAL, kind=Kind.COUNTER, help="Journal entries that nothing could take; a snapshot follows."),
    Spec(
        name=JOURNAL_REFUSED_TOTAL,
        kind=Kind.COUNTER,
        help="Writers that were stopped because another one owns the session, or because an entry was missing.",
        labels=(Label("reason", ("stale", "gap")),),
    ),
    Spec(name=TOOL_CALLS_TOTAL, kind=Kind.COUNTER, help="Tool calls that ended.", labels=(Label("outcome", _OUTCOMES),)),
    Spec(
        name=TOOLS_UNCONFIRMED_TOTAL,
        kind=Kind.COUNTER,
        help="Calls of tools with side effects whose beginning was not confirmed in time: run, or refused without a gateway.",
        labels=(Label("outcome", ("run", "refused"), closed=True),),
    ),
    Spec(name=INTERRUPTIONS_TOTAL, kind=Kind.COUNTER, help="Responses that the caller cut short."),
    Spec(
        name=AUDIO_FRAMES_TOTAL,
        kind=Kind.COUNTER,
        help="Audio messages taken from callers (in) and sent to them (out).",
        labels=(_DIRECTION,),
    ),
    Spec(
        name=AUDIO_FRAMES_DROPPED_TOTAL,
        kind=Kind.COUNTER,
        help="Audio messages dropped, by direction and cause.",
        labels=(_DIRECTION, Label("cause")),
    ),
    Spec(
        name=WIRE_UNKNOWN_EVENTS_TOTAL,
        kind=Kind.COUNTER,
        help="Messages of a type that this version does not know.",
        labels=(_SIDE,),
    ),
    Spec(
        name=WIRE_ERRORS_TOTAL,
        kind=Kind.COUNTER,
        help="Messages that broke their protocol, by side and error code.",
        labels=(_SIDE, Label("code")),
    ),
)

CATALOGUE: dict[str, Spec] = {spec.name: spec for spec in _SPECS}
