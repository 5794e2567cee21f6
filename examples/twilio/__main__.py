"""An agent answers the telephone, over Twilio Media Streams; several calls at once."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from examples._endpoint import add_endpoint_options, open_endpoint, run_example
from examples._serving import listen, origin_of, serving
from examples._talk import until_first
from examples.twilio.agent import run_config, workshop
from examples.twilio.server import INCOMING_CALL, PhoneDesk
from orchestrator.errors import UserError
from orchestrator.gateway.authentication import CarrierDoor
from orchestrator.realtime import RealtimeRunner
from orchestrator.settings import LOOPBACK, Secret

SCENARIO = Path(__file__).with_name("scenario.yaml")
FAILED = 1


async def answer(options: argparse.Namespace) -> int:
    """Take calls until somebody ends it, or place one with `--call` and end after it."""
    auth_token = Secret(os.environ.get("TWILIO_AUTH_TOKEN", ""))
    refuse_an_open_door(options, auth_token)
    with listen(options.host, options.port) as listener:
        async with open_endpoint(options, SCENARIO) as model_config:
            origin = options.public_url or origin_of(listener)
            # Without a token only this machine can reach us, so nobody signs.
            door = CarrierDoor(auth_token, [origin], open_without_token=not auth_token)
            desk = PhoneDesk(RealtimeRunner(workshop, config=run_config), model_config, door=door, public_url=origin)
            async with serving(desk.app(), listener) as ended:
                print(f"The voice webhook is {origin}{INCOMING_CALL}. Ctrl-C ends it.\n", flush=True)
                if not options.call:
                    await ended()
                    return 0
                return int(await until_first(place_call(f"{origin}{INCOMING_CALL}", auth_token), ended()) or 0)


def refuse_an_open_door(options: argparse.Namespace, auth_token: Secret) -> None:
    """Raise UserError where strangers could talk to the model at our expense, or where no signature could be right."""
    exposed = options.host not in LOOPBACK or options.public_url
    if exposed and not auth_token:
        raise UserError("whoever reaches this could talk at your expense: set TWILIO_AUTH_TOKEN, so that calls are checked")
    if options.host not in LOOPBACK and not options.public_url:
        raise UserError("the carrier signs the address that it calls: say which with --public-url https://...")
    if options.public_url and not options.public_url.startswith(("https://", "http://")):
        raise UserError("--public-url begins with https://")
    if options.call and options.public_url:
        raise UserError("--call stays on this machine: leave --public-url out")


async def place_call(url: str, auth_token: Secret) -> int:
    """Ring ourselves; return 0 if the call went as it should."""
    try:
        # Only here: what a caller needs comes with the extra `offline`, and a server that is called can do without.
        from examples.twilio.caller import call_the_desk
    except ModuleNotFoundError as error:
        raise UserError(f"--call needs {error.name}: pip install 'realtime-orchestrator[offline]'") from None
    return 0 if await call_the_desk(url, auth_token.reveal() or None) else FAILED


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.twilio", description=__doc__)
    add_endpoint_options(parser)
    parser.add_argument("--call", action="store_true", help="let the offline carrier place a call, then end")
    parser.add_argument("--port", type=int, default=5050, help="port to listen on; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--public-url", metavar="URL", help="where the carrier reaches this server, such as https://my.tunnel")
    return run_example(answer, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
