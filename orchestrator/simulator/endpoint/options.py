"""How the model behaves where the Realtime API leaves it open, or where nobody has captured what the live one does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.vad import VadKind

__all__ = ["ModelOptions", "Timing"]


@dataclass(frozen=True)
class Timing:
    """How fast the model is. Times are seconds.

    `first_output` passes between a request and the first output, unless the scenario says otherwise. Audio comes in deltas
    of `delta_ms` milliseconds, `pace` times faster than it plays (0: all at once); text in words, one per `text_interval`.
    """

    first_output: float = 0.3
    pace: float = 5.0
    delta_ms: int = 200
    text_interval: float = 0.01

    @property
    def delta_interval(self) -> float:
        """Seconds between two audio deltas."""
        return self.delta_ms / 1000 / self.pace if self.pace > 0 else 0.0


@dataclass(frozen=True)
class ModelOptions:
    """The choices for all sessions of one endpoint. Times are seconds.

    Hearing: `vad` finds the turns in the caller's audio, by its level or by a model of voices. It reads as fast as audio is
    appended, or with `real_time` no faster than it would have been spoken.

    Transcripts: `transcription_delay` passes between a commit and its transcript, and up to `transcription_jitter` more,
    drawn anew for each, so that transcripts overtake each other; `transcription_repeats` sends the last event of each so many
    times again. With `recognition` the words of a spoken turn are asked for (`Recognize`), else the scenario says them.

    Sessions: `session_seconds` is how long one may last, `audio_limit` how many bytes of a caller's audio are kept for
    `retrieve`. A `session.update` that names another model is ignored or refused (`model_change`). An update of
    `turn_detection` starts from the defaults or, with `turn_detection_merges`, from what was set.
    `call_end_code` closes the sockets of a call that is over.

    Turns and responses: with `queue_turns` a spoken turn that ends while a response runs (which takes
    `interrupt_response: false`) is answered after it, else not at all. `obfuscation` pads the text deltas. An item ends with
    `conversation.item.done` before `response.output_item.done`, or with `item_done_first` false after it.
    `conversation_created` sends the documented event that the live API does not send. With `mcp_continues` a response whose
    MCP calls are done is followed by another one without being asked for; with `approval_continues` so is the client's
    decision about one.

    Context: `context_tokens` is the most that a response may be based on (None: what the model is documented to take). A
    session that forbids truncation fails a response beyond that with `overflow_code`.
    """

    timing: Timing = field(default_factory=Timing)
    vad: VadKind = "energy"
    real_time: bool = False
    transcription_delay: float = 0.3
    transcription_jitter: float = 0.0
    transcription_repeats: int = 0
    recognition: bool = False
    session_seconds: float = 3600.0
    audio_limit: int = 8 * 1024 * 1024
    model_change: Literal["ignore", "refuse"] = "ignore"
    turn_detection_merges: bool = False
    call_end_code: int = 1000
    queue_turns: bool = True
    obfuscation: bool = True
    item_done_first: bool = True
    conversation_created: bool = False
    mcp_continues: bool = True
    approval_continues: bool = False
    context_tokens: int | None = None
    overflow_code: str = "context_length_exceeded"
