"""An agent answers the telephone, over SIP to the provider; a webhook says that it rings."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from examples._endpoint import add_endpoint_options, offline_endpoint, run_example
from examples._serving import listen, origin_of, serving
from examples._talk import until_first
from examples.sip.agent import reception, run_config
from examples.sip.server import WEBHOOK, SipDesk
from orchestrator.errors import UserError
from orchestrator.realtime.calls import RealtimeCalls

SCENARIO = Path(__file__).with_name("goodbye.yaml")
OFFLINE_KEY = "offline"
OFFLINE_PERSON = "tel:+15550199"


async def answer(options: argparse.Namespace) -> int:
    """Take calls: until somebody ends it, or offline those that it places itself."""
    return await (answer_offline(options) if options.offline else answer_provider(options))


async def answer_provider(options: argparse.Namespace) -> int:
    """Take the calls that reach the OpenAI API over SIP."""
    secret = os.environ.get("OPENAI_WEBHOOK_SECRET", "")
    if not secret:
        raise UserError("set OPENAI_WEBHOOK_SECRET: without it nobody knows whether a call is genuine")
    print("Taking calls for the OpenAI Realtime API with OPENAI_API_KEY; it is charged to your account.\n", flush=True)
    desk = SipDesk(reception, run_config, RealtimeCalls(), secret=secret, model=options.model, person=options.person)
    async with open_desk(desk, options) as (webhook_url, ended):
        print(f"The webhook is {webhook_url}; the provider has to reach it from outside. Ctrl-C ends this.\n", flush=True)
        await ended()
    return 0


async def answer_offline(options: argparse.Namespace) -> int:
    """Let phones ring at the offline endpoint, take the calls, and say how the callers found it."""
    # A real secret from the environment has no business here.
    secret = f"whsec_{b64encode(secrets.token_bytes(24)).decode()}"
    async with offline_endpoint(options.scenario) as endpoint:
        desk = SipDesk(
            reception,
            run_config,
            RealtimeCalls(OFFLINE_KEY, base_url=endpoint.rest_url),
            secret=secret,
            url=endpoint.url,
            api_key=OFFLINE_KEY,
            model=options.model,
            person=options.person or OFFLINE_PERSON,
        )
        async with open_desk(desk, options) as (webhook_url, ended):
            # Only here: it comes with what the endpoint needs.
            from examples.sip.ringing import Phones

            phones = Phones(endpoint.control_url, webhook_url, secret, options.scenario)
            return int(await until_first(phones.ring_all(options.calls), ended()) or 0)


@asynccontextmanager
async def open_desk(desk: SipDesk, options: argparse.Namespace) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Take calls inside the block. Yields the webhook's address, and what waits until the server has ended by itself."""
    with listen(options.host, options.port) as listener:
        async with serving(desk.app(), listener) as ended:
            try:
                yield f"{origin_of(listener)}{WEBHOOK}", ended
            finally:
                await desk.aclose(hang_up=options.hang_up)


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.sip", description=__doc__)
    add_endpoint_options(parser)
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--person", metavar="URI", help='where callers go who want a person, as "tel:+1..." or "sip:..."')
    parser.add_argument("--hang-up", action="store_true", help="at the end, hang up the calls that are still there")
    offline = parser.add_argument_group("with --offline")
    offline.add_argument("--scenario", default=SCENARIO, help="what the endpoint follows (default: goodbye.yaml)")
    offline.add_argument("--calls", type=int, default=1, help="how many phones ring at once (default: %(default)s)")
    return run_example(answer, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
