"""A customer calls: a refund that a person approves, a line that is down, and a question that must not be answered.

The customer's sentences are written down here, so that this runs by itself; you decide about the refund.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from examples._endpoint import add_endpoint_options, open_endpoint, run_example
from examples._lines import Lines
from examples._talk import Talk, until_first
from examples.triage.agents import run_config, triage
from orchestrator.realtime import RealtimePlaybackTracker, RealtimeRunner

SCENARIO = Path(__file__).with_name("scenario.yaml")
CUSTOMER = (
    "Hello, I would like a refund of invoice 88.",
    "And my internet is down, it is line 7.",
    "Which card do you have on file?",
    "Thank you, goodbye.",
)
# No answer of an agent takes this long; a person may take any time.
LONGEST_ANSWER = 60.0
FAILED = 1


async def call(options: argparse.Namespace) -> int:
    """Hold the conversation. Returns 0 when nothing went wrong in it."""
    async with open_endpoint(options, SCENARIO) as model_config:
        runner = RealtimeRunner(triage, config=run_config)
        playback = RealtimePlaybackTracker()
        async with await runner.run(model_config={**model_config, "playback_tracker": playback}) as session:
            talk = Talk(session, playback)
            finished = await until_first(speak(talk, Lines()), talk.follow())
            if not finished:
                print("The conversation ended before its time.", file=sys.stderr)
            return 0 if finished and not talk.errors else FAILED


async def speak(talk: Talk, lines: Lines) -> bool:
    """Say the customer's sentences, each when the one before is dealt with. Returns whether all were answered."""
    for sentence in CUSTOMER:
        talk.note(f"Customer: {sentence}")
        await talk.say(sentence)
        try:
            await dealt_with(talk, lines)
        except TimeoutError:
            talk.note(f"  [no answer within {LONGEST_ANSWER:g} s]")
            return False
    return True


async def dealt_with(talk: Talk, lines: Lines) -> None:
    """Wait for the agents, and put to the person at the terminal what they ask. The end of the input is a no."""
    await asyncio.wait_for(talk.settled(), LONGEST_ANSWER)
    while talk.approval is not None:
        answer = await lines.next()
        talk.typed(answer or "", shown=lines.interactive and answer is not None)
        await talk.decide("no" if answer is None else answer)
        if talk.approval is None:
            await asyncio.wait_for(talk.settled(), LONGEST_ANSWER)


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.triage", description=__doc__.splitlines()[0] if __doc__ else None)
    add_endpoint_options(parser)
    return run_example(call, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
