"""RabbitMQ, one node, with a port mapper of its own."""

import contextlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

import pika
from pika.exceptions import AMQPError

from . import containers, debian
from .errors import ServerFailed, ServerUnavailable
from .machine import LOOPBACK, SERVERS, free_ports, installed, say
from .server import Launch, Route, Server

# Debian's releases, the preferred first: trixie has RabbitMQ 4.0, bookworm 3.10. docker/compose.yaml names the former.
Release = Literal["trixie", "bookworm"]
RELEASES: tuple[Release, ...] = ("trixie", "bookworm")
VERSION = "4.0.5"

_CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
log.file = false
log.console = true
log.console.level = warning
# The machine's disk is not ours to judge.
disk_free_limit.absolute = 10MB
"""

# The port mapper in the same process group, so that it ends with the broker however that ends: Erlang's own way leaves
# a daemon behind. The broker takes the shell's process id.
_START = '"$ENTER" "$BINDIR/epmd" & exec "$ENTER" "$BINDIR/beam.smp" "$@"'


class RabbitMq(Server):
    """A RabbitMQ broker.

        with RabbitMq() as rabbitmq:
            pika.BlockingConnection(pika.URLParameters(rabbitmq.url))

    Args:
        base_dir: Where programs are installed, once.
        data_dir: Where it keeps its data; a temporary folder unless given.
        release: Of which Debian release it is: "trixie" for RabbitMQ 4.0, "bookworm" for 3.10. By default the newest
            that can be had.
    """

    name: ClassVar[str] = "rabbitmq"
    variable: ClassVar[str] = "POSTSEAL_TEST_RABBITMQ"

    def __init__(
        self, *, base_dir: Path = SERVERS, data_dir: Path | None = None, release: Release | None = None
    ) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        self._releases = RELEASES if release is None else (release,)
        self._port, self._distribution, self._mapper = free_ports(3)
        self._program: Path | None = None

    @property
    def address(self) -> str:
        """Where it listens: host:port. Without the name and password that `url` has, so that it may be shown."""
        host, port = self._listens()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """What pika and aio-pika are given: `amqp://user:password@host:port/virtual-host`."""
        # "%2F" is the virtual host "/"; with nothing there, some clients take the empty name.
        return self.given or f"amqp://guest:guest@{LOOPBACK}:{self._port}/%2F"

    def url_at(self, address: str) -> str:
        """Give the `url` that leads through a recorder at *address*."""
        url = urlsplit(self.url)
        who, at, _ = url.netloc.rpartition("@")
        return urlunsplit(url._replace(netloc=f"{who}{at}{address}"))

    @property
    def route(self) -> Route:
        """Where a recorder has to stand. Clients then use `url_at` its address."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    def is_up(self) -> bool:
        """Open a connection and a channel."""
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 5
        with contextlib.suppress(AMQPError, OSError):
            connection = pika.BlockingConnection(parameters)
            try:
                connection.channel()
            finally:
                connection.close()
            return True
        return False

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` with *arguments* on it, and give what it prints. Takes two seconds.

        Raises:
            ServerUnavailable: It is a server that runs already, which is not ours to control.
            ServerFailed: The command failed; the text holds its output.
        """
        launch, data_dir = self._launch, self._data_dir
        if self.given or launch is None or data_dir is None:
            raise ServerUnavailable(f"{self.name} is not ours to control")
        if launch.in_container:
            up = list(launch.command)
            command = [*up[: up.index("up")], "exec", "-T", "rabbitmq", "rabbitmqctl", *arguments]
        else:
            assert self._program is not None
            command = [*debian.erlang(self._program, data_dir, self._mapper), "-hidden", *_LOCAL]
            script = next(self._program.glob("usr/lib/rabbitmq/lib/*/escript/rabbitmqctl"))
            command += ["-run", "escript", "start", "-escript", "main", "rabbitmqctl_escript"]
            command += ["-extra", str(script), *arguments]
        done = subprocess.run(
            command,
            env=dict(launch.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            raise ServerFailed(f"rabbitmqctl {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def flush(self) -> None:
        """Have it write down which queues it has: it does so some time after it declared them, and a power cut may come before."""
        self.control("eval", "mnesia:sync_log().")

    def _listens(self) -> tuple[str, int]:
        if not self.given:
            return LOOPBACK, self._port
        url = urlsplit(self.given)
        return url.hostname or LOOPBACK, url.port or 5672

    def _native(self, data_dir: Path) -> Launch:
        reasons: list[str] = []
        for release in self._releases:
            try:
                self._program = installed(
                    self.base_dir, f"rabbitmq-{release}", partial(_install, release=release)
                )
            except ServerUnavailable as error:
                reasons.append(f"Debian {release}: {error}")
                continue
            if reasons:
                say(f"NOTE: an older RabbitMQ stands in. Reason: {'; '.join(reasons)}")
            return self._launch_from(self._program, data_dir)
        raise ServerUnavailable(
            f"RabbitMQ cannot be had here; {self.variable} may name one that runs. " + "\n".join(reasons)
        )

    def _launch_from(self, program: Path, data_dir: Path) -> Launch:
        home = data_dir / "home"
        home.mkdir(exist_ok=True)
        configuration, plugins = data_dir / "rabbitmq.conf", data_dir / "enabled_plugins"
        configuration.write_text(_CONFIGURATION.format(host=LOOPBACK, port=self._port))
        plugins.write_text("[].\n")
        erlang = debian.erlang(program, data_dir, self._mapper)
        loader, beam = erlang[:2]
        server = next(program.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*"))
        nowhere = str(data_dir / "none")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ENTER": loader,
            "ROOTDIR": str(program / "usr/lib/erlang"),
            "BINDIR": str(Path(beam).parent),
            "EMU": "beam",
            "PROGNAME": "erl",
            "ERL_LIBS": str(server / "plugins"),
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_MAX_ETS_TABLES": "50000",
            "ERL_CRASH_DUMP_BYTES": "0",
            "SYS_PREFIX": str(data_dir),
            "RABBITMQ_HOME": str(server),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_PLUGINS_DIR": str(server / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_ADVANCED_CONFIG_FILE": nowhere,
            "RABBITMQ_CONF_ENV_FILE": nowhere,
            "RABBITMQ_MNESIA_BASE": str(data_dir / "mnesia"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(data_dir / "generated"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(data_dir / "feature_flags"),
            "RABBITMQ_PID_FILE": str(data_dir / "pid"),
            "RABBITMQ_LOG_BASE": str(data_dir / "log"),
            "RABBITMQ_LOGS": "-",
        }
        boot = ["-s", "rabbit", "boot", "-boot", str(program / "usr/lib/erlang/bin/start_sasl")]
        quiet = ["-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"]
        return Launch(
            ["sh", "-c", _START, "rabbitmq", *erlang[2:], *boot, *_LOCAL, *quiet],
            environment=environment,
            patience=20,
        )

    def _container(self) -> Launch:
        up, down = containers.compose_up("rabbitmq")
        return Launch(
            up,
            containers.environment({"POSTSEAL_RABBITMQ_PORT": self._port}),
            afterwards=down,
            in_container=True,
        )


# Between Erlang's own nodes, too, nothing but the loopback interface.
_LOCAL = ("-kernel", "inet_dist_use_interface", "{127,0,0,1}")


def _install(folder: Path, *, release: Release) -> None:
    debian.unpack(folder, release=release, package="rabbitmq-server")
    debian.make_erlang_run_anywhere(folder)
    shutil.rmtree(folder / "usr/share/doc", ignore_errors=True)
