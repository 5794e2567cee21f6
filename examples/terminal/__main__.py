"""Talk with an agent in the terminal: you type, it answers.

The agent speaks, and what it says is printed as it comes; nothing is played.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples._endpoint import add_endpoint_options, open_endpoint, run_example
from examples._lines import Lines
from examples._talk import Talk, describe, until_first
from orchestrator.agent_ref import load_agent, load_run_config
from orchestrator.realtime import RealtimePlaybackTracker, RealtimeRunConfig, RealtimeRunner, RealtimeSessionModelSettings

AGENT = "examples.triage.agents:triage"
RUN_CONFIG = "examples.triage.agents:run_config"
SCENARIO = Path(__file__).parent.parent / "triage" / "scenario.yaml"
HELP = """\
  /interrupt  stop the agent; it then remembers only what was said by now
  /history    show the conversation as the session has it
  /quit       end; so do Ctrl-D and Ctrl-C"""
ENDED = 1


async def converse(options: argparse.Namespace) -> int:
    """Hold the conversation. Returns 0 when the user ended it."""
    agent = load_agent(options.agent)
    runner = RealtimeRunner(agent, config=read_run_config(options))
    async with open_endpoint(options, options.scenario) as model_config:
        playback = RealtimePlaybackTracker()
        async with await runner.run(model_config={**model_config, "playback_tracker": playback}) as session:
            print(f"You talk with {agent.name}. Type a sentence, or a command:\n{HELP}\n", flush=True)
            talk = Talk(session, playback, prompt="you: ")
            talk.settle()
            if await until_first(listen(talk, Lines()), talk.follow()):
                return 0
            talk.note("  [the other side ended the conversation]")
            return ENDED


def read_run_config(options: argparse.Namespace) -> RealtimeRunConfig:
    """Load the settings that belong to the agent, and add what the options say."""
    # The triage agents come with settings; another agent comes with those that are given.
    reference = options.run_config or (RUN_CONFIG if options.agent == AGENT else None)
    config: RealtimeRunConfig = {**load_run_config(reference)}  # type: ignore[typeddict-item]  # it is a RealtimeRunConfig by its contract
    if options.text:
        settings: RealtimeSessionModelSettings = {**config.get("model_settings", {}), "output_modalities": ["text"]}
        config["model_settings"] = settings
    return config


async def listen(talk: Talk, lines: Lines) -> bool:
    """Do what the user types, until the end. Returns True."""
    while True:
        if not lines.interactive:
            # Nobody is there to see when the agent is done: each line of a pipe or a file waits for its turn.
            await talk.settled()
        line = await lines.next()
        if line is None:
            talk.end_line()
            return True
        talk.typed(line, shown=lines.interactive)
        if not await obey(talk, line.strip()):
            return True


async def obey(talk: Talk, line: str) -> bool:
    """Do what one line says. Returns False when it is the last."""
    match line:
        case "/quit":
            return False
        case "/interrupt":
            await talk.interrupt()
        case "/history":
            for item in talk.session.history:
                talk.note(f"  {describe(item)}")
            talk.settle()
        case _ if talk.approval is not None:
            await talk.decide(line)
        case "":
            talk.settle()
        case _ if line.startswith("/"):
            talk.note(HELP)
            talk.settle()
        case _:
            await talk.say(line)
    return True


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.terminal", description="Talk with an agent in the terminal.")
    add_endpoint_options(parser)
    parser.add_argument("--agent", default=AGENT, metavar="MODULE:ATTRIBUTE", help="the agent (default: %(default)s)")
    parser.add_argument("--run-config", metavar="MODULE:ATTRIBUTE", help="settings of the run, a RealtimeRunConfig")
    parser.add_argument("--scenario", default=SCENARIO, help="what the offline endpoint follows (default: the triage script)")
    parser.add_argument("--text", action="store_true", help="let the agent write instead of speak; it costs less")
    return run_example(converse, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
