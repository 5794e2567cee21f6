"""Every error that the product raises, and the record of why something ended.

The tree is split by fault, since the reader of an error first asks whose it is::

    OrchestratorError
    ├── UserError            the program uses the API wrongly
    ├── SettingsError        the service is configured wrongly
    ├── CallerFault          what came from a caller is wrong
    │   ├── WireError        a message breaks its protocol
    │   ├── WebhookSignatureError a webhook is not signed by who should have sent it
    │   └── Refused          a request is turned away before a session exists
    ├── ModelFault           the model endpoint failed
    │   ├── CallControlError a request about a SIP call failed
    │   ├── LegConnectError  no connection, or no upgrade
    │   ├── ModelLostError   the connection was lost and cannot be made anew
    │   ├── SettingsRefusedError the endpoint refused the session's settings
    │   ├── ModelBehaviorError  the model asked for something that makes no sense
    │   └── ResponseTimeoutError  an asked-for response did not start in time
    ├── ToolFault            a tool failed
    │   ├── ToolFailedError  it raised
    │   ├── ToolTimeoutError it took longer than it may
    │   └── ToolLostError    the actor that ran it died; the outcome is unknown
    ├── InfrastructureFault  a socket, an actor or a node failed
    │   ├── LegClosedError   the leg ended
    │   ├── PageError        a session page cannot be used
    │   ├── JournalFormatError  an entry cannot be read
    │   ├── JournalContentError  the store will never take an entry
    │   └── JournalUnavailableError  the store does not answer, and the spool is full
    └── InternalFault        we broke our own rules: a bug of ours
        └── IllegalTransitionError

Each has a stable `code`, says in its message what to do next, and says by `retryable` whether the same request may succeed
later. No message carries a secret or what a caller said.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

__all__ = [
    "CallControlError",
    "CallerFault",
    "EndReason",
    "IllegalTransitionError",
    "InfrastructureFault",
    "InternalFault",
    "JournalContentError",
    "JournalFormatError",
    "JournalUnavailableError",
    "LegClosedError",
    "LegConnectError",
    "ModelBehaviorError",
    "ModelFault",
    "ModelLostError",
    "OrchestratorError",
    "PageError",
    "Refused",
    "ResponseTimeoutError",
    "SettingsError",
    "SettingsRefusedError",
    "ToolFailedError",
    "ToolFault",
    "ToolLostError",
    "ToolTimeoutError",
    "UserError",
    "WebhookSignatureError",
    "WireError",
]


class EndReason(msgspec.Struct, frozen=True):
    """Why a leg, response, session or actor ended.

    `code` is a short stable identifier (used as a metric label), `text` is for people, `cause` names the error behind it,
    if any, and `by` the side that ended it: "caller", "model", "us", "peer" (a leg that does not know who is behind its
    peer), "network" or "infrastructure".
    """

    code: str
    text: str = ""
    cause: str | None = None
    by: str = "us"


class OrchestratorError(Exception):
    """Base of all errors of this product."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(OrchestratorError):
    """The program uses the API in a way that cannot work; the message says what to write instead."""

    code = "user_error"


class SettingsError(OrchestratorError):
    """A setting is missing, malformed or contradicts another one."""

    code = "invalid_settings"


class CallerFault(OrchestratorError):
    """What came from outside is wrong; only the one who sent it is affected."""

    code = "caller_fault"


class WireError(CallerFault):
    """A message breaks its protocol.

    `wire_code` and `param` have the meaning of the Realtime API's error object: `param` is the JSON path of the offending
    field, or None.
    """

    code = "wire_error"

    def __init__(self, wire_code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.wire_code = wire_code
        self.param = param


class WebhookSignatureError(CallerFault):
    """A webhook is not signed with the secret that we have for it, or not for now; answer it with 400 and do nothing.

    `reason` is "missing_header", "timestamp" (malformed), "too_old", "too_new" or "signature".
    """

    code = "webhook_signature"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Refused(CallerFault):
    """A request is turned away before a session exists.

    `status` is the HTTP status, `reason` the stable code given to the caller and used as the label of the refusal counter,
    `retry_after` the seconds after which another try makes sense, or None.
    """

    code = "refused"

    def __init__(self, status: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class ModelFault(OrchestratorError):
    """The model endpoint failed."""

    code = "model_fault"
    retryable = True


class LegConnectError(ModelFault):
    """A connection could not be opened or upgraded.

    `status` is the HTTP status of the refusal, or None when no answer came; `body` the beginning of what the refusal said,
    for a log that may hold what the endpoint writes. `retry_after` is the seconds after which it wants to be asked again, None
    where it did not say.
    """

    code = "connect_failed"

    def __init__(self, message: str, status: int | None = None, body: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class ModelLostError(ModelFault):
    """The connection to the model was lost, or could not be had, and no endpoint is left to try; `reason` says why."""

    code = "model_lost"
    retryable = False

    def __init__(self, reason: EndReason) -> None:
        super().__init__(f"{reason.text}: {reason.cause}")
        self.reason = reason


class CallControlError(ModelFault):
    """A request about a call at the provider failed.

    `status` is the HTTP status of the refusal, or None when no answer came.
    """

    code = "call_control_failed"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ModelBehaviorError(ModelFault):
    """The model asked for something that makes no sense, such as a tool call with malformed arguments."""

    code = "model_behavior"
    retryable = False


class SettingsRefusedError(ModelFault):
    """The endpoint refused the session's settings, so the agent would speak without its instructions.

    `settings` are those that it refused, as the session gave them to the model.
    """

    code = "settings_refused"
    retryable = False

    def __init__(self, message: str, settings: object = None) -> None:
        super().__init__(message)
        self.settings = settings


class ResponseTimeoutError(ModelFault):
    """A response that was asked for did not start before its deadline."""

    code = "response_timeout"


class ToolFault(OrchestratorError):
    """A tool failed."""

    code = "tool_fault"


class ToolFailedError(ToolFault):
    """The tool's own code raised."""

    code = "tool_failed"


class ToolTimeoutError(ToolFault):
    """The tool took longer than it may."""

    code = "tool_timeout"
    retryable = True


class ToolLostError(ToolFault):
    """The process that ran the tool died, so whether the tool took effect is unknown."""

    code = "tool_lost"


class InfrastructureFault(OrchestratorError):
    """A socket, an actor or a node failed."""

    code = "infrastructure_fault"
    retryable = True


class LegClosedError(InfrastructureFault):
    """The leg has ended; `reason` says why."""

    code = "leg_closed"

    def __init__(self, reason: EndReason) -> None:
        super().__init__(f"the leg has ended: {reason.code} {reason.text}".rstrip())
        self.reason = reason


class PageError(InfrastructureFault):
    """A session page cannot be made or used: damaged, of another version, of another connection, or on a kernel without it."""

    code = "session_page"
    retryable = False


class JournalFormatError(InfrastructureFault):
    """An entry of the journal cannot be read: damaged, or written by newer code."""

    code = "journal_format"
    retryable = False


class JournalContentError(InfrastructureFault):
    """The journal's store answers, and refuses a batch for what is in it: it would refuse it for ever."""

    code = "journal_content"
    retryable = False


class JournalUnavailableError(InfrastructureFault):
    """The journal's store does not answer."""

    code = "journal_unavailable"


class InternalFault(OrchestratorError):
    """A rule of our own is broken. Please report it with the log around it."""

    code = "internal_fault"


class IllegalTransitionError(InternalFault):
    """A state machine was given a signal that its table does not list for its present state."""

    code = "illegal_transition"
