"""Talk with an agent in the browser."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples._endpoint import add_endpoint_options, open_endpoint, run_example
from examples._serving import listen, origin_of, serving
from examples.web.guard import LOOPBACK
from examples.web.protocol import MAX_MESSAGE
from examples.web.server import create_app

SCENARIO = Path(__file__).with_name("scenario.yaml")


async def serve(options: argparse.Namespace) -> int:
    """Serve until somebody ends it."""
    with listen(options.host, options.port) as listener:
        async with open_endpoint(options, SCENARIO) as model_config:
            app = create_app(model_config, names={*LOOPBACK, options.host, *options.name})
            async with serving(app, listener, max_message=MAX_MESSAGE) as ended:
                print(f"Open {origin_of(listener)} in a browser. Ctrl-C ends it.", flush=True)
                await ended()
    return 0


def main() -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="python -m examples.web", description=__doc__)
    add_endpoint_options(parser)
    parser.add_argument("--port", type=int, default=8000, help="port of the page; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--name", action="append", default=[], help="a further host name under which the page is reached")
    return run_example(serve, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
