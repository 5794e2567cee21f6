"""Scenarios: what the offline endpoint hears, says and calls, written down in YAML.

A scenario is a list of turns. A spoken turn of the caller takes the turn after the last one taken, and is reported as its
`heard` (unless the endpoint is to recognise speech); a typed one takes the first turn whose `match` fits. What to do is a list
of steps: `say` a text, or `call` a tool, which ends the response; the steps after a call follow when its output is there.
Texts are templates::

    turns:
      - heard: Where is my order four seven one one?
        match: order\\D*(?P<number>\\d+)?
        think: 0.4
        do:
          - call: lookup_order
            arguments: {order_id: "{match.number|4711}"}
          - say: Your order is {tool.output.status|not known to me}.
    default:
      do: [{say: "You said: {heard}"}]

A turn may end badly (`end`), or its transcript may fail (`transcription`); `idle` is the turn that answers when nobody has
spoken for the session's `idle_timeout_ms`. `mcp` says what the MCP servers of a session offer, by their label; a `call` with
a `server` is one of theirs, and the endpoint makes it by itself::

    mcp:
      warehouse:
        seconds: 0.2
        tools:
          - name: find
            input_schema: {type: object, properties: {id: {type: string}}, required: [id]}
            output: {shelf: "A-{tool.arguments.id}"}
    turns:
      - heard: Where does it lie?
        do:
          - call: find
            server: warehouse
            arguments: {id: "4711"}
          - say: On shelf {tool.output.shelf}.
      - heard: Tell me something forbidden.
        end: {status: incomplete, reason: content_filter, after: 3}
        do: [{say: I should not say more than this.}]
    idle: {do: [{say: "Are you still there?"}]}

`{path}` is looked up in `heard`, `match` (the groups of the pattern), `audio` (`seconds` of the spoken turn), `tool` (`name`,
`arguments`, `output` of the call answered last) and `tools` (the same by tool name). What is missing becomes the text after
`|`, or "unknown". A brace is written twice.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import yaml

from orchestrator.errors import UserError
from orchestrator.simulator.endpoint.fault_types import AnyFault
from orchestrator.simulator.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Ending",
    "McpFault",
    "McpOffer",
    "McpServer",
    "Scenario",
    "Step",
    "TranscriptError",
    "Turn",
    "fill",
    "fill_text",
    "load_scenario",
    "parse_scenario",
    "shipped_scenarios",
]

ROOTS = frozenset({"audio", "heard", "match", "tool", "tools"})
MISSING = "unknown"
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(?P<path>[A-Za-z_][\w.]*)(?:\|(?P<otherwise>[^{}]*))?\}|[{}]")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to do: `say` a text, or `call` a tool with `arguments`; a `server` makes it a tool of that MCP server."""

    say: str | None = None
    call: str | None = None
    arguments: dict[str, Any] = {}
    server: str = ""

    def __post_init__(self) -> None:
        if (self.say is None) == (self.call is None):
            raise ValueError("a step has either `say` or `call`")
        if self.arguments and self.call is None:
            raise ValueError("only a `call` has arguments")
        if self.server and self.call is None:
            raise ValueError("only a `call` has a server")
        _check_templates(self.say)
        _check_templates(self.arguments)


class Ending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a response ends that does not end well.

    `failed` has the `code`, `message` and `type` of an error, such as inference_rate_limit_exceeded or server_error;
    `incomplete` has a `reason`. It ends once `after` words were generated (0: before anything is), or with its last word.
    """

    status: Literal["failed", "incomplete"]
    code: str = ""
    message: str = "The model could not go on."
    type: str = "server_error"
    reason: Literal["", "content_filter", "max_output_tokens"] = ""
    after: int = 0

    def __post_init__(self) -> None:
        if self.status == "failed" and (self.reason or not self.code):
            raise ValueError("an end that is `failed` has a `code`, and no `reason`")
        if self.status == "incomplete" and (self.code or not self.reason):
            raise ValueError("an end that is `incomplete` has a `reason`, and no `code`")
        if self.after < 0:
            raise ValueError("`after` cannot be negative")


class TranscriptError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why what was heard could not be written down."""

    code: str = "audio_unintelligible"
    message: str = "The audio could not be transcribed."
    type: str = "transcription_error"


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is heard and what follows.

    `match` is a regular expression searched in typed text, case-insensitively; without one, `heard` itself is searched for.
    `think` is the time in seconds before the answer starts, None for the endpoint's own. `end` says how the last response of
    the turn ends, where that is not well; with `transcription` there is no transcript, but this fault.
    """

    do: tuple[Step, ...]
    heard: str = ""
    match: str | None = None
    think: float | None = None
    end: Ending | None = None
    transcription: TranscriptError | None = None

    def __post_init__(self) -> None:
        if self.match is not None:
            try:
                re.compile(self.match)
            except re.error as error:
                raise ValueError(f"`match` is not a regular expression: {error}") from None
        if self.think is not None and self.think < 0:
            raise ValueError("`think` cannot be negative")

    def groups(self, text: str) -> dict[str, str] | None:
        """The named groups if this turn fits the typed text, else None."""
        pattern = self.match if self.match is not None else re.escape(self.heard)
        found = re.search(pattern, text, re.IGNORECASE) if pattern else None
        if found is None:
            return None
        return {name: value for name, value in found.groupdict().items() if value is not None}


class McpFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a call of an MCP tool fails. A tool that itself reports an error has no `code`."""

    message: str
    type: Literal["protocol_error", "tool_execution_error", "http_error"] = "tool_execution_error"
    code: int | None = None

    def __post_init__(self) -> None:
        if (self.type == "tool_execution_error") != (self.code is None):
            raise ValueError("a `protocol_error` and an `http_error` have a `code`, a `tool_execution_error` has none")


class McpOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool of an MCP server, and what a call of it gives after `seconds`: an `output` (a template) or an `error`."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})
    annotations: dict[str, Any] | None = None
    output: Any = ""
    error: McpFault | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValueError("`seconds` cannot be negative")
        if self.error is not None and self.output != "":
            raise ValueError("a tool has either an `output` or an `error`")
        _check_templates(self.output)


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an MCP server offers. Listing it takes `seconds`, and may fail."""

    tools: tuple[McpOffer, ...] = ()
    seconds: float = 0.1
    fails: bool = False

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValueError("`seconds` cannot be negative")

    def find(self, name: str) -> McpOffer | None:
        """The tool of that name, if it has one."""
        return next((tool for tool in self.tools if tool.name == name), None)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole conversation, as the endpoint sees it.

    `greeting` answers a response that is asked for before the caller said anything. With `repeat` the spoken turns start
    over after the last one; else `default` answers, and where `idle` is not given, that too. `language` is an espeak-ng
    voice. `mcp` has the MCP servers that can be reached, by label: any other cannot. `faults` are there from the start of the
    server (see `endpoint.fault_types`).
    """

    name: str
    default: Turn
    description: str = ""
    language: str = "en-us"
    turns: tuple[Turn, ...] = ()
    greeting: Turn | None = None
    repeat: bool = False
    idle: Turn | None = None
    mcp: dict[str, McpServer] = {}
    faults: tuple[AnyFault, ...] = ()

    def __post_init__(self) -> None:
        for turn in self._all_turns():
            for step in turn.do:
                if step.server and step.server not in self.mcp:
                    raise ValueError(f"a step calls a tool of {step.server!r}, but `mcp` has no such server")
                if step.call is not None and step.server and self.mcp[step.server].find(step.call) is None:
                    raise ValueError(f"a step calls {step.call!r} of {step.server!r}, but that server has no such tool")

    def _all_turns(self) -> list[Turn]:
        return [*self.turns, self.default, *([self.greeting] if self.greeting else []), *([self.idle] if self.idle else [])]

    def spoken_texts(self) -> list[str]:
        """All that is said without a placeholder in it: worth rendering before the first caller."""
        texts = (step.say for turn in self._all_turns() for step in turn.do if step.say is not None)
        return [fill_text(text, {}) for text in texts if not re.search(r"\{[A-Za-z_]", text)]


def parse_scenario(text: str, source: str = "scenario") -> Scenario:
    """Read YAML. Raises UserError that names the source and the path of the fault in it."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {error}") from None
    try:
        return msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        # msgspec ends its message with the path: "... - at `$.turns[0].do[1]`".
        raise UserError(f"{source}: {error}") from None


def shipped_scenarios() -> list[str]:
    """Names of the scenarios that come with the package."""
    folder = resources.files("orchestrator.simulator").joinpath("scenarios")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_scenario(name: str) -> Scenario:
    """Load a shipped scenario by name, or a file by path. Blocks on the disk. Raises UserError."""
    if name in shipped_scenarios():
        shipped = resources.files("orchestrator.simulator").joinpath("scenarios", f"{name}.yaml")
        return parse_scenario(shipped.read_text(encoding="utf-8"), f"{name}.yaml")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(shipped_scenarios())
        raise UserError(f"no scenario {name!r} ({error.strerror}): give the path of a file, or one of {known}") from None
    return parse_scenario(text, name)


def fill_text(template: str, values: Mapping[str, Any]) -> str:
    """Fill the placeholders of a text."""

    def replace(found: re.Match[str]) -> str:
        if found["path"] is None:
            return found[0][0]
        return _as_text(_look_up(found, values))

    return _PLACEHOLDER.sub(replace, template)


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Fill the placeholders in a JSON value. A text that is one placeholder takes the type of what it stands for."""
    if isinstance(template, str):
        whole = _PLACEHOLDER.fullmatch(template)
        if whole is not None and whole["path"] is not None:
            return _look_up(whole, values)
        return fill_text(template, values)
    if isinstance(template, dict):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    return template


def _look_up(found: re.Match[str], values: Mapping[str, Any]) -> Any:
    value: Any = values
    for name in found["path"].split("."):
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and value.get(name) is not None:
            value = value[name]
        else:
            otherwise = found["otherwise"]
            return MISSING if otherwise is None else otherwise
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _check_templates(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _check_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_templates(inner)
    elif isinstance(value, str):
        for found in _PLACEHOLDER.finditer(value):
            if found[0] in ("{", "}"):
                raise ValueError(f"a single brace in {value!r}: write it twice, or {{heard}} and the like")
            if found["path"] is not None and found["path"].split(".")[0] not in ROOTS:
                raise ValueError(f"{found[0]} refers to nothing: a placeholder starts with one of {', '.join(sorted(ROOTS))}")
