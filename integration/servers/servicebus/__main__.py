"""Serve until the program is ended.

    python -m integration.servers.servicebus --port 25672 --control 25673 [--config entities.json]

The configuration has the form of Microsoft's emulator (docker/servicebus/Config.json).
"""

import argparse
import json
import logging
import signal
import threading
from pathlib import Path

from .config import create_all
from .server import ServiceBusTestServer
from .tokens import KEY


def main() -> None:
    """Read the command line, serve, and stop in order when asked to."""
    parser = argparse.ArgumentParser(description="A test server for clients of Azure Service Bus.")
    parser.add_argument("--port", type=int, default=0, help="where clients connect")
    parser.add_argument("--control", type=int, default=0, help="where entities are made and faults asked for")
    parser.add_argument(
        "--config", type=Path, help="entities to begin with, as Microsoft's emulator has them"
    )
    parser.add_argument("--key", default=KEY, help="with which clients sign their tokens")
    given = parser.parse_args()

    logging.basicConfig(level=logging.INFO)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ServiceBusTestServer(port=given.port, control=given.control, key=given.key) as server:
        if given.config is not None:
            create_all(server, json.loads(given.config.read_text()))
        print(server.connection_string, server.control_url, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
