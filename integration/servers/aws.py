"""An emulator of Amazon SQS, SNS, KMS and Secrets Manager."""

import contextlib
import importlib.util
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from . import containers
from .errors import ServerUnavailable
from .machine import LOOPBACK, SERVERS, free_ports, installed, run, say
from .pythons import newer_python
from .server import Launch, Route, Server

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient

REGION = "eu-west-1"

Flavour = Literal["localemu", "moto"]

# What these four need of localemu, a third of the whole. docker/aws.Dockerfile installs the same.
_PINS = Path(__file__).with_name("localemu.txt")
# Its metadata says 3.10; its code imports what 3.13 brought.
_PYTHON = (3, 13)


class AwsEmulator(Server):
    """SQS, SNS, KMS and Secrets Manager at one address, for any credentials.

    Args:
        base_dir: Where programs are installed, once.
        data_dir: Where it keeps its data; a temporary folder unless given. Messages and keys stay in memory.
        flavour: Which emulator: localemu, the most faithful, or moto, which forgives more. By default localemu where it
            can be had.
    """

    name: ClassVar[str] = "aws"
    variable: ClassVar[str] = "POSTSEAL_TEST_AWS"

    def __init__(
        self, *, base_dir: Path = SERVERS, data_dir: Path | None = None, flavour: Flavour | None = None
    ) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        self._wanted = flavour
        self.flavour: Flavour | None = flavour
        (self._port,) = free_ports(1)

    @property
    def address(self) -> str:
        """The `endpoint_url` of a client."""
        return self.given.rstrip("/") or f"http://{LOOPBACK}:{self._port}"

    @property
    def route(self) -> Route:
        """Where a recorder has to stand. Clients then use `http://` and its address, not ours."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    def sqs(self, address: str | None = None) -> "SQSClient":
        """Make an SQS client, of this emulator or of a recorder's *address* before it."""
        return boto3.client("sqs", **self._options(address))

    def kms(self, address: str | None = None) -> "KMSClient":
        """Make a KMS client, likewise."""
        return boto3.client("kms", **self._options(address))

    def sns(self) -> "SNSClient":
        """Make an SNS client, likewise."""
        return boto3.client("sns", **self._options(None))

    def secrets(self) -> Any:
        """Make a client of Secrets Manager, likewise."""
        return boto3.client("secretsmanager", **self._options(None))

    def is_up(self) -> bool:
        """Ask each service for a list. The first question also loads it, so that no test waits for that."""
        with (
            contextlib.closing(self.sqs()) as sqs,
            contextlib.closing(self.sns()) as sns,
            contextlib.closing(self.kms()) as kms,
            contextlib.suppress(BotoCoreError, ClientError),
        ):
            sqs.list_queues()
            sns.list_topics()
            kms.list_keys()
            return True
        return False

    def _options(self, address: str | None) -> dict[str, Any]:
        return {
            "endpoint_url": address or self.address,
            "region_name": REGION,
            # Twelve digits would be taken for an account number.
            "aws_access_key_id": "postseal",
            "aws_secret_access_key": "postseal",
            "config": Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=60),
        }

    def _listens(self) -> tuple[str, int]:
        url = urlsplit(self.address)
        return url.hostname or LOOPBACK, url.port or 80

    def _native(self, data_dir: Path) -> Launch:
        if self._wanted == "moto":
            return self._moto(data_dir)
        try:
            return self._localemu(data_dir)
        except ServerUnavailable as error:
            # On CI nothing less will do: half of the tests would be left out.
            if self._wanted == "localemu" or containers.engine_answers() or os.environ.get("CI") == "true":
                raise
            launch = self._moto(data_dir)
            say(
                f"NOTE: localemu cannot be had, so moto stands in, which cannot disable a key or move dead letters back. Reason: {error}"
            )
            return launch

    def _localemu(self, data_dir: Path) -> Launch:
        python, version = newer_python(_PYTHON, base_dir=self.base_dir)
        release = _PINS.read_text().split("localemu==")[1].split()[0]
        installation = installed(
            self.base_dir,
            f"localemu-{release}-py{version}",
            partial(_install, python=python, version=version),
        )
        root = data_dir / "root"
        if not root.exists():
            shutil.copytree(installation / "root", root)
        self.flavour = "localemu"
        return Launch(
            # -S: only the packages beside PYTHONPATH, none of that Python's own.
            [str(python), "-S", "-m", "localemu.runtime.main"],
            environment={
                **_environment(data_dir),
                **_folders(installation, root),
                "GATEWAY_LISTEN": f"{LOOPBACK}:{self._port}",
                "LOCALEMU_HOST": f"{LOOPBACK}:{self._port}",
                # The default server listens on every interface.
                "GATEWAY_SERVER": "hypercorn",
                # Queue addresses with the host that clients use, not a name that must be resolved.
                "SQS_ENDPOINT_STRATEGY": "path",
                "SERVICES": "sqs,sns,kms,secretsmanager",
                "STRICT_SERVICE_LOADING": "1",
                # Nothing asked of the network outside.
                "DNS_ADDRESS": "0",
                "DISABLE_EVENTS": "1",
                "SKIP_SSL_CERT_DOWNLOAD": "1",
            },
            # It may wait for its clients to hang up. Nothing of it is kept.
            patience=1,
        )

    def _moto(self, data_dir: Path) -> Launch:
        if importlib.util.find_spec("moto") is None:
            raise ServerUnavailable(
                "neither localemu nor moto can be had: install Python 3.13 or newer, or moto[server]"
            )
        self.flavour = "moto"
        return Launch(
            [sys.executable, "-m", "moto.server", "--host", LOOPBACK, "--port", str(self._port)],
            environment=_environment(data_dir),
        )

    def _container(self) -> Launch:
        self.flavour = "localemu"
        up, down = containers.compose_up("aws")
        return Launch(
            up, containers.environment({"POSTSEAL_AWS_PORT": self._port}), afterwards=down, in_container=True
        )


def _install(folder: Path, *, python: Path, version: str) -> None:
    """Fetch the packages for that version of Python, and have localemu write its index of services once."""
    packages = folder / "packages"
    run(
        [
            *[sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"],
            *["--target", str(packages), "--python-version", version, "--only-binary=:all:"],
            *["--requirement", str(_PINS)],
        ],
        what="fetching localemu",
        tries=3,
    )
    root = folder / "root"
    index = (
        "import os; from localemu import config; os.makedirs(config.dirs.cache); "
        "from localemu.aws.spec import get_service_catalog; get_service_catalog()"
    )
    settings = [f"{name}={value}" for name, value in _folders(folder, root).items()]
    run(["env", *settings, str(python), "-S", "-c", index], what="preparing localemu")


def _folders(installation: Path, root: Path) -> dict[str, str]:
    # Without the last, localemu takes some machines for a container and writes into the system's folders.
    return {
        "PYTHONPATH": str(installation / "packages"),
        "FILESYSTEM_ROOT": str(root),
        "OVERRIDE_IN_DOCKER": "0",
    }


def _environment(data_dir: Path) -> dict[str, str]:
    home = data_dir / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
