"""Another process of a case: a consumer that is killed, a producer that forks. Told what to do on standard input, in JSON.

python -m integration.faults.worker consume|fork
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from integration.faults.brokers import KINDS
from integration.faults.case import client_at
from integration.servers import AwsEmulator, Kafka, RabbitMq, ServiceBus
from postseal.core import AwsKms, DataKeyLimits, Policy, Sealer

_SERVERS = {kind.name: kind for kind in (Kafka, RabbitMq, ServiceBus)} | {"sqs": AwsEmulator}


class Mortal(list[Any]):
    """Bodies that were handled: each is noted, and at one of them the process is killed.

    Args:
        note: Where they are noted.
        ends_at: Which one is the last.
        settled: Whether that is settled first: then the process ends where the next one comes.
    """

    def __init__(self, note: Path, ends_at: int, settled: bool) -> None:
        super().__init__()
        self._note, self._ends_at, self._settled = note, ends_at, settled

    def append(self, body: Any) -> None:
        if self._settled and len(self) == self._ends_at:
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(body)
        with self._note.open("ab") as note:
            note.write(body + b"\n")
        if not self._settled and len(self) == self._ends_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Do it."""
    wanted = json.load(sys.stdin)
    os.environ[wanted["variable"]] = wanted["address"]
    broker = KINDS[wanted["kind"]](_SERVERS[wanted["kind"]](), hidden=wanted["hidden"])
    scheme, place, note = wanted["kind"], wanted["place"], Path(wanted["note"])
    policy = Policy(
        name="orders",
        destinations=[f"{scheme}:{place}"],
        keys=["main"],
        data_key=DataKeyLimits(max_messages=10),
        on_refused="quarantine",
        quarantine=f"{scheme}:{wanted['refused']}",
    )
    kms = client_at(wanted["kms"], wanted["arn"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": AwsKms(kms, wanted["arn"])})
    if sys.argv[1] == "consume":
        line = broker.line()
        broker.known(line, place)
        with line.receiving(sealer, place) as receiving:
            receiving.bodies = Mortal(note, wanted["ends_at"], wanted["settled"])
            while True:
                receiving.step()
    bodies = [body.encode() for body in wanted["bodies"]]

    def send(some: list[bytes]) -> None:
        for body in broker.send(broker.line(), sealer, place, some):
            with note.open("ab") as noted:
                noted.write(body + b"\n")

    # Sealed with a data key that is good for more: whoever took it along would use it again.
    sealer.seal(b"", destination=f"{scheme}:{place}")
    half = len(bodies) // 2
    child = os.fork()
    if child == 0:
        kms.close()  # its connections are the parent's: boto3 is not for two processes
        send(bodies[:half])
        os._exit(0)
    send(bodies[half:])
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
