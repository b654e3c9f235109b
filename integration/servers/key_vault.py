"""A key vault of Azure's: Lowkey Vault in a container, or the double of the tests as a server of its own."""

import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError
from azure.keyvault.keys import KeyClient

from tests.core.key_vault import AnyCredential, environment_of

from . import containers
from .machine import LOOPBACK, REPOSITORY, SERVERS, free_ports, say
from .server import Launch, Route, Server

# docker/compose.yaml names the same one.
VERSION = "7.3.74-ubi10-minimal"

Flavour = Literal["lowkey-vault", "double"]


class KeyVault(Server):
    """A vault over TLS, for any credential; keys with versions, rotation, disabling and deletion.

    Lowkey Vault is published to a registry of containers and to one that wants an account, and to no other: natively, the double
    of `tests/core/key_vault.py` stands in, in a process of its own. What is shown on it is shown on our reading of the service's documents.

    Args:
        base_dir: Where programs are installed; this one needs none.
        data_dir: Where its certificate lies; a temporary folder unless given.
    """

    name: ClassVar[str] = "key_vault"
    variable: ClassVar[str] = "POSTSEAL_TEST_KEY_VAULT"

    def __init__(self, *, base_dir: Path = SERVERS, data_dir: Path | None = None) -> None:
        super().__init__(base_dir=base_dir, data_dir=data_dir)
        self.flavour: Flavour | None = "lowkey-vault" if self.given else None
        (self._port,) = free_ports(1)

    @property
    def address(self) -> str:
        """The ``vault_url`` of a client."""
        # Lowkey Vault has a vault for each host name, and this one from the start.
        return self.given.rstrip("/") or f"https://{LOOPBACK}:{self._port}"

    @property
    def route(self) -> Route:
        """Where a recorder has to stand. It sees TLS."""
        host, port = self._listens()
        return Route(listen=0, host=host, port=port)

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs besides to find its way here."""
        return {
            "connection_verify": self._certificate,
            "verify_challenge_resource": False,
            "api_version": "7.6",
            "connection_timeout": 5,
            "read_timeout": 60,
            "retry_total": 1,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a process finds its identity here; the double's alone."""
        return environment_of(self.address, self._certificate)

    def client(self, **options: Any) -> KeyClient:
        """Make a client that may do everything."""
        return KeyClient(self.address, AnyCredential(), **{**self.options, **options})

    def is_up(self) -> bool:
        """Ask for a key that is not there, by TLS that its certificate vouches for."""
        if self._data_dir is None and not self.given:
            return False  # stopped
        try:
            if self.flavour == "lowkey-vault":
                self._learn_certificate()
            with self.client() as client:
                client.get_key("is-up")
        except (AzureError, OSError) as error:
            return getattr(error, "status_code", None) == 404  # not found: HTTP's own number
        return True

    @property
    def _certificate(self) -> str:
        return str(self._folder / "ca.pem")

    @property
    def _folder(self) -> Path:
        if self._data_dir is None:  # one that runs already
            self._data_dir = Path(tempfile.mkdtemp(prefix=f"postseal-{self.name}-"))
        return self._data_dir

    def _learn_certificate(self) -> None:
        """Take the certificate that it shows, which it signed itself, for its own: it is on this machine, and a toy."""
        (self._folder / "ca.pem").write_text(ssl.get_server_certificate(self._listens(), timeout=5))

    def _listens(self) -> tuple[str, int]:
        url = urlsplit(self.address)
        return url.hostname or LOOPBACK, url.port or 443

    def _native(self, data_dir: Path) -> Launch:
        self.flavour = "double"
        say(
            "NOTE: Lowkey Vault comes in containers only, so the double of the tests stands in for a key vault."
        )
        return Launch(
            [sys.executable, "-m", "tests.core.key_vault", str(self._port), str(data_dir / "ca.pem")],
            environment={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(REPOSITORY),
                "PYTHONUNBUFFERED": "1",
                "HOME": str(data_dir),
                "TMPDIR": str(data_dir),
                "LANG": "C.UTF-8",
            },
            # It may wait for its clients to hang up. Nothing of it is kept.
            patience=1,
        )

    def _container(self) -> Launch:
        self.flavour = "lowkey-vault"
        up, down = containers.compose_up("key-vault")
        environment = containers.environment({"POSTSEAL_KEY_VAULT_PORT": self._port})
        return Launch(up, environment, afterwards=down, in_container=True)
