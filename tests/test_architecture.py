"""The laws that keep the house in order: who may import whom, how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A program, and the script that Alembic runs.
RUN_NOT_IMPORTED = {"__main__.py", "env.py"}
SOURCES = sorted((ROOT / "orchestrator").rglob("*.py")) + sorted((ROOT / "actors").rglob("*.py"))

# What each room may import beside itself; a module directly under orchestrator/ is a room of its own.
ROOMS = {
    "errors": set[str](),
    "settings": {"errors"},
    "stream_token": {"settings"},
    "wire": {"errors"},
    "telemetry": {"errors", "settings"},
    "transports": {"errors", "telemetry"},
    "core": {"errors", "wire", "usage"},
    "usage": set[str](),
    "run_context": {"usage"},
    "callables": set[str](),
    "exceptions": {"errors"},
    "guardrail": {"callables", "errors", "run_context"},
    "tool_guardrails": {"callables", "errors", "tool_context"},
    "handoffs": {"run_context"},
    "run_config": {"run_context"},
    "tool_context": {"run_context"},
    "function_schema": {"errors", "run_context"},
    "tool": {"errors", "function_schema", "run_context", "tool_context", "tool_guardrails"},
    "tool_runner": {"callables", "errors", "telemetry", "tool", "tool_context"},
    "agent_ref": {"errors"},
    "realtime": {
        *("errors", "exceptions", "callables", "wire", "core", "transports", "telemetry", "usage", "run_context", "run_config"),
        *("function_schema", "tool", "tool_context", "tool_runner", "tool_guardrails", "handoffs"),
    },
    "journal": {"errors", "core", "settings", "telemetry"},
    "channels": {
        *(
            "errors",
            "journal",
            "settings",
            "stream_token",
            "telemetry",
            "transports",
            "wire",
            "core",
            "realtime",
            "tool_runner",
        ),
        "usage",
    },
    "http_server": {"errors", "telemetry"},
    "cluster": {"errors", "settings", "telemetry", "tool", "tool_runner", "gateway"},
    "gateway": {"errors", "settings", "stream_token", "telemetry", "cluster", "http_server", "journal", "transports", "wire"},
    "simulator": {"errors", "http_server", "transports", "wire"},
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "orchestrator" and len(parts) > 1 else None


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1].removesuffix(".py") if parts[0] == "orchestrator" else ""


# The command line, the demo and the like are compositions: they may use every room.
@pytest.mark.parametrize(
    "path", [path for path in SOURCES if room_of(path) in ROOMS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_run_one_way(path: Path) -> None:
    home = ROOT / "orchestrator"
    used = {room(module) for module in imports(path)} - {None, room_of(path)}
    rooms = {found for found in used if (home / f"{found}").exists() or (home / f"{found}.py").exists()}
    assert rooms <= ROOMS[room_of(path)]


def test_orchestrator_never_imports_ray() -> None:
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == "orchestrator":
            assert not {module for module in imports(path) if module == "ray" or module.startswith("ray.")}, path


def test_importing_all_of_orchestrator_loads_no_ray() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == "orchestrator" and path.name not in RUN_NOT_IMPORTED
    ]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nsys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_actors_hold_no_logic_of_a_conversation() -> None:
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == "actors":
            assert not {module for module in imports(path) if module.startswith(("orchestrator.core", "orchestrator.wire"))}, (
                path
            )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            doc_lines = (first.end_lineno or 0) - first.lineno + 1 if docstring else 0
            assert (node.end_lineno or 0) - node.lineno + 1 - doc_lines <= 60, node.name
