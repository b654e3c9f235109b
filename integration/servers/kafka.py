"""Apache Kafka, one node, broker and controller in one process."""

import base64
import contextlib
import os
import re
import shutil
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from . import containers
from .errors import ServerUnavailable
from .machine import LOOPBACK, SERVERS, free_ports, installed, program, run
from .server import Launch, Route, Server

# The newest whose artifacts are complete; runs on Java 17. docker/compose.yaml names the same one.
VERSION = "4.3.1"
_JAVA = 17

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>postseal</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

# Two listeners for clients: one at the address that it announces, and one announced at a port where a recorder may stand.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{plain},RECORDED://{host}:{behind},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{plain},RECORDED://{host}:{recorded}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,RECORDED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={logs}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# Who joins a group, or a share group, is told of its partitions with a heartbeat: 5 s apart by default.
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
group.share.min.heartbeat.interval.ms=500
group.share.heartbeat.interval.ms=500
# A killed broker returns only after its last session has ended: 9 s by default. One that got no processor for as long is taken for gone.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
# Two of these are mapped for each partition, 10 MB each by default: all is read whenever the broker's memory is looked through.
log.index.size.max.bytes=65536
"""


class Kafka(Server):
    """A Kafka broker: transactions, and groups of the classic and the new protocol."""

    name: ClassVar[str] = "kafka"
    variable: ClassVar[str] = "POSTSEAL_TEST_KAFKA"

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        self._plain, self._behind, self._recorded, self._controller = free_ports(4)

    @property
    def address(self) -> str:
        """The `bootstrap.servers` of a client: host:port."""
        return self.given or f"{LOOPBACK}:{self._plain}"

    @property
    def route(self) -> Route:
        """Where a recorder has to stand. Clients then start at its address, not at ours."""
        if self.given:
            raise ServerUnavailable(f"{self.variable} names a broker that announces no port for a recorder")
        return Route(listen=self._recorded, host=LOOPBACK, port=self._behind)

    def is_up(self) -> bool:
        """Ask for the list of topics."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        with contextlib.suppress(KafkaException):
            return bool(admin.list_topics(timeout=5).brokers)
        return False

    def _listens(self) -> tuple[str, int]:
        host, _, port = self.address.split(",")[0].rpartition(":")
        return host, int(port)

    def _native(self, data_dir: Path) -> Launch:
        java = _java(self.base_dir)
        program_dir = installed(
            self.base_dir, f"kafka-{VERSION}", partial(_install, java=java, base_dir=self.base_dir)
        )
        logs = data_dir / "logs"
        if not logs.exists():
            shutil.copytree(program_dir / "formatted", logs)
        properties = data_dir / "server.properties"
        properties.write_text(
            _PROPERTIES.format(
                host=LOOPBACK,
                plain=self._plain,
                behind=self._behind,
                recorded=self._recorded,
                controller=self._controller,
                logs=logs,
            )
        )
        # Started often and for a short time: a quick start matters more than quick code.
        options = ["-Xms128m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        logging = [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
        ]
        classes = ["-cp", str(program_dir / "libs" / "*")]
        return Launch(
            [java, *options, *logging, *classes, "kafka.Kafka", str(properties)],
            environment={"PATH": os.environ["PATH"], "HOME": str(data_dir), "LANG": "C.UTF-8"},
        )

    def _container(self) -> Launch:
        up, down = containers.compose_up("kafka")
        ports = {
            "POSTSEAL_KAFKA_PORT": self._plain,
            "POSTSEAL_KAFKA_BEHIND_PORT": self._behind,
            "POSTSEAL_KAFKA_RECORDED_PORT": self._recorded,
        }
        return Launch(up, containers.environment(ports), afterwards=down, in_container=True)


def _install(program_dir: Path, *, java: str, base_dir: Path) -> None:
    """Fetch the broker's artifacts, and format one empty log folder that every start copies."""
    maven = program("mvn", package="maven", base=base_dir)
    (program_dir / "pom.xml").write_text(_POM)
    libs = program_dir / "libs"
    run(
        [
            maven,
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={libs}",
        ],
        what="fetching Kafka through Maven",
        tries=3,
        directory=program_dir,
    )
    formatted = program_dir / "formatted"
    properties = program_dir / "format.properties"
    properties.write_text(
        _PROPERTIES.format(host=LOOPBACK, plain=1, behind=2, recorded=3, controller=4, logs=formatted)
    )
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = [java, "-cp", str(libs / "*"), "kafka.tools.StorageTool"]
    # "=": an identifier may begin with a dash.
    run(
        [*tool, "format", f"--cluster-id={cluster}", "--config", str(properties)],
        what="formatting Kafka's log folder",
    )


def _java(base_dir: Path) -> str:
    home = os.environ.get("JAVA_HOME", "")
    own = Path(home) / "bin" / "java"
    java = (
        str(own) if home and own.exists() else program("java", package="default-jre-headless", base=base_dir)
    )
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < _JAVA:
        raise ServerUnavailable(f"Kafka {VERSION} needs Java {_JAVA} or newer; {java} says: {told.strip()}")
    return java
