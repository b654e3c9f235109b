"""What sealing costs each client: messages per second sealed against bare, with the same broker in the same run.

    python bench/brokers.py [--json] [--rounds N] [--only kafka,sqs]

Bodies of 1 KiB, confidentiality, the data key cached. Each file beside this one measures one client and runs alone, too. RabbitMQ and the
Service Bus test server are started as the tests start them.
"""

import argparse
import importlib
import json
import sys
import warnings
from pathlib import Path

from postseal.core.accelerator import native

ROOT = Path(__file__).parents[1]
PARTS = ("rabbitmq", "sqs", "servicebus", "kafka", "loop_gap")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else PARTS
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    warnings.simplefilter("ignore")
    sys.path[:0] = [str(ROOT), str(ROOT / "bench")]
    figures = {"accelerator": native() is not None}
    for name in chosen:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        figures |= importlib.import_module(name).measure(options.rounds)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
