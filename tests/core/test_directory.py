"""Public keys looked up: who signs a directory, what is refused of it, and how long it goes on (B2)."""

from __future__ import annotations

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import (
    ConfigError,
    Ed25519Key,
    HmacKey,
    KeyRing,
    KeyUnavailable,
    OpeningKey,
    PublicKeyRecipients,
)
from postseal.core.directory import Directory, Fetched, HttpsFile, LocalFile, issue
from tests.core.authority import NOW, Authority
from tests.core.stand_ins import CONTEXT, Clock

ADMIN = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
SIGNER = Ed25519Key("admin-1", private_key=ADMIN, senders=["key-admin"])
ISSUERS = KeyRing([Ed25519Key("admin-1", public_key=ADMIN.public_key(), senders=["key-admin"])])
WAREHOUSE = [OpeningKey.generate("x25519") for _ in range(3)]
ARCHIVE = OpeningKey.generate("p-256")


def entry(name: str, key: OpeningKey, state: str = "active", version: int = 1) -> dict:
    return {"name": name, "version": version, "state": state, "public_key": key.public.to_pem().decode()}


def document(version: int = 1, *entries: dict) -> dict:
    return {
        "version": version,
        "recipient": list(entries) or [entry("warehouse", WAREHOUSE[0]), entry("archive", ARCHIVE)],
    }


def signed(what: dict, *, name: str = "company", key=SIGNER, issuer: str = "key-admin", **options) -> bytes:
    return issue(what, destination=f"directory:{name}", issuer=issuer, key=key, **options)


class Host:
    """Serves what it is given, and counts; or is away."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked: list[str | None] = []
        self.away = False

    def __call__(self, etag: str | None) -> Fetched | None:
        self.asked.append(etag)
        if self.away:
            raise TimeoutError("away")
        mark = str(hash(self.content))
        return None if mark == etag else Fetched(self.content, mark)


class World:
    """A directory whose host, clock and threads are the test's."""

    def __init__(self, content: bytes | None = None, **options) -> None:
        self.host = Host(signed(document()) if content is None else content)
        self.clock = Clock()
        self.jobs: list = []
        given = {"name": "company", "issuers": ISSUERS, "recipients": ["warehouse", "archive"]} | options
        self.directory = Directory(self.host, monotonic=self.clock, run=self.jobs.append, **given)

    def names(self) -> list:
        return list(self.directory.recipients(CONTEXT))

    def later(self, seconds: float = 301) -> None:
        """Let time pass, and the thread beside have its turn."""
        self.clock.pass_(seconds)
        self.directory.recipients(CONTEXT)
        while self.jobs:
            self.jobs.pop(0)()


def test_who_is_named_is_wrapped_for_by_public_keys_alone():
    """B2: no private key leaves its process; what the document holds is public."""
    world = World()
    provider = PublicKeyRecipients(world.directory)
    made = provider.generate(CONTEXT)
    for key in (WAREHOUSE[0], ARCHIVE):
        assert PublicKeyRecipients(open_with=[key]).unwrap(made.recipients, CONTEXT) == made.data_key
    assert b"PRIVATE" not in world.host.content


def test_a_new_version_is_taken_up_beside_and_nobody_waits():
    world = World()
    old = world.names()
    new = document(
        2,
        entry("warehouse", WAREHOUSE[1], version=2),
        entry("warehouse", WAREHOUSE[0], "retired"),
        entry("warehouse", WAREHOUSE[2], "pending", 3),
        entry("archive", ARCHIVE),
    )
    world.host.content = signed(new)
    world.clock.pass_(301)
    assert world.names() == old
    assert world.names() == old
    assert len(world.jobs) == 1  # one thread, however many ask
    world.jobs.pop()()
    assert world.names() == [WAREHOUSE[1].public, ARCHIVE.public]
    assert world.directory.version == 2


def test_what_did_not_change_is_not_fetched_again():
    world = World()
    world.later()
    world.later()
    assert world.host.asked[0] is None
    assert len(set(world.host.asked[1:])) == 1
    assert None not in world.host.asked[1:]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"clear text",
        json.dumps(document(2)).encode(),
        signed(document(2), name="other"),
        signed(
            document(2), issuer="somebody", key=Ed25519Key("admin-1", private_key=ADMIN, senders=["somebody"])
        ),
        signed(
            document(2),
            key=Ed25519Key(
                "admin-1", private_key=ed25519.Ed25519PrivateKey.generate(), senders=["key-admin"]
            ),
        ),
        signed(document(2), expires_at=datetime(2026, 1, 1, tzinfo=UTC)),
        signed(document(2, entry("warehouse", WAREHOUSE[1]))),
        signed(document(2))[:-1],
    ],
    ids=[
        "empty",
        "clear",
        "unsigned",
        "another name",
        "another issuer",
        "another key",
        "expired",
        "a name is gone",
        "cut",
    ],
)
def test_what_its_host_changed_is_not_taken_and_the_old_goes_on(content, caplog):
    """The host is not trusted."""
    world = World()
    old = world.names()
    world.host.content = content
    world.later()
    assert world.names() == old
    assert world.directory.version == 1
    assert "was not refreshed" in caplog.text
    with pytest.raises(ConfigError):
        World(content)


def test_an_older_version_is_not_taken_for_a_newer():
    """Whoever serves it cannot bring back a key that was withdrawn."""
    world = World(signed(document(7)))
    new = world.names()
    world.host.content = signed(document(6, entry("warehouse", WAREHOUSE[2]), entry("archive", ARCHIVE)))
    world.later()
    assert world.names() == new
    with pytest.raises(ConfigError, match="stale"):
        World(signed(document(6)), at_least=7)


def test_while_its_host_is_away_it_goes_on_up_to_max_stale():
    world = World(max_stale=3600.0)
    world.host.away = True
    for _ in range(11):
        world.later(300)
        assert world.names()
    world.clock.pass_(301)
    with pytest.raises(KeyUnavailable, match="could not be refreshed for 3600 seconds"):
        world.names()
    for job in world.jobs:
        job()
    world.host.away = False
    world.clock.pass_(31)
    with pytest.raises(KeyUnavailable):
        world.names()
    world.jobs.pop()()
    assert world.names()


def test_nothing_at_first_is_no_directory():
    host = Host(b"")
    host.away = True
    with pytest.raises(KeyUnavailable, match="cannot be had: TimeoutError"):
        Directory(host, name="company", issuers=ISSUERS, recipients=["warehouse"])


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="no active key of 'warehose'; did you mean 'warehouse'"):
        World(recipients=["warehose"])
    with pytest.raises(ConfigError, match="a list of names"):
        World(recipients="warehouse")
    with pytest.raises(ConfigError, match="needs issuers"):
        World(issuers=None)
    with pytest.raises(ConfigError, match="HMAC"):
        World(issuers=KeyRing([HmacKey("h", bytes(32))]))
    with pytest.raises(ConfigError, match="HMAC"):
        signed(document(), key=HmacKey("h", bytes(32)))
    with pytest.raises(ConfigError, match="needs a version"):
        signed({"recipient": []})
    with pytest.raises(ConfigError, match="over https"):
        HttpsFile("http://keys.example/")
    for entries in ([{"name": "warehouse"}], ["x"], [entry("warehouse", WAREHOUSE[0], "actve")]):
        with pytest.raises(ConfigError, match=r"lacks|did you mean 'active'"):
            World(signed(document(1, *entries)))


def test_certificates_must_lead_to_the_roots_that_are_given():
    authority = Authority()
    public = serialization.load_pem_public_key(WAREHOUSE[0].public.to_pem())
    pem = authority.issue("warehouse", public, key_agreement=True).decode()
    content = signed(document(1, {"name": "warehouse", "public_key": pem}))
    options = {"recipients": ["warehouse"], "clock": NOW.timestamp}
    assert World(content, roots=authority.pem, **options).names() == [WAREHOUSE[0].public]
    with pytest.raises(ConfigError, match="does not lead to a root"):
        World(content, roots=Authority().pem, **options)
    with pytest.raises(ConfigError, match="bare key"):
        World(roots=authority.pem)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_a_local_file_may_be_believed_as_it_lies_there(tmp_path, form):
    file = tmp_path / "directory"

    def write(version: int, key: OpeningKey) -> None:
        pem = key.public.to_pem().decode()
        if form == "json":
            file.write_text(json.dumps(document(version, entry("warehouse", key))))
        else:
            file.write_text(
                f'version = {version}\n[[recipient]]\nname = "warehouse"\npublic_key = """{pem}"""\n'
            )

    write(1, WAREHOUSE[0])
    clock, jobs = Clock(), []
    directory = Directory(
        LocalFile(file), name="x", issuers=None, recipients=["warehouse"], monotonic=clock, run=jobs.append
    )
    assert list(directory.recipients(CONTEXT)) == [WAREHOUSE[0].public]
    write(2, WAREHOUSE[1])
    clock.pass_(301)
    directory.recipients(CONTEXT)
    jobs.pop()()
    assert list(directory.recipients(CONTEXT)) == [WAREHOUSE[1].public]
    file.write_text("version = ")
    with pytest.raises(ConfigError, match="neither JSON nor TOML"):
        Directory(LocalFile(file), name="x", issuers=None, recipients=["warehouse"])


def test_a_thread_of_its_own_refreshes_it(tmp_path):
    file = tmp_path / "directory"
    file.write_bytes(signed(document()))
    fetched = threading.Event()
    local = LocalFile(file)

    def fetch(etag):
        if etag is not None:
            fetched.set()
        return local(etag)

    directory = Directory(fetch, name="company", issuers=ISSUERS, recipients=["archive"], refresh=0.0)
    assert directory.recipients(CONTEXT)
    assert fetched.wait(60)


# -- HTTPS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def https(tmp_path):
    """Serve `content` over TLS on this machine, with an ETag."""
    authority = Authority()
    key = ec.generate_private_key(ec.SECP256R1())
    pair = tmp_path / "pair.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.write_bytes(pem + authority.issue("localhost", key.public_key(), digital_signature=True))

    class Handler(BaseHTTPRequestHandler):
        content = signed(document())
        answered: list[int] = []  # noqa: RUF012 - of the one test
        redirected = False

        def do_GET(self):
            mark = f'"{hash(self.content)}"'
            same = self.headers.get("If-None-Match") == mark
            code = 302 if self.redirected else 404 if self.path != "/directory" else 304 if same else 200
            self.answered.append(code)
            self.send_response(code)
            self.send_header("ETag", mark)
            self.send_header("Location", "/directory?other")
            self.send_header("Content-Length", str(len(self.content) if code == 200 else 0))
            self.end_headers()
            if code == 200:
                self.wfile.write(self.content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    # The name and the time of the certificate are the fixture's own: what is tested is not TLS.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    yield Handler, HttpsFile(f"https://127.0.0.1:{server.server_port}/directory", context=client), client
    server.shutdown()
    server.server_close()


def test_over_https_it_is_asked_for_with_its_etag(https):
    handler, fetch, _ = https
    clock, jobs = Clock(), []
    directory = Directory(
        fetch, name="company", issuers=ISSUERS, recipients=["warehouse"], monotonic=clock, run=jobs.append
    )
    clock.pass_(301)
    directory.recipients(CONTEXT)
    jobs.pop()()
    handler.content = signed(document(2, entry("warehouse", WAREHOUSE[1])))
    clock.pass_(301)
    directory.recipients(CONTEXT)
    jobs.pop()()
    assert handler.answered == [200, 304, 200]
    assert list(directory.recipients(CONTEXT)) == [WAREHOUSE[1].public]


def test_another_answer_and_a_redirection_are_no_document(https):
    handler, fetch, client = https
    handler.redirected = True
    with pytest.raises(OSError, match="answered 302"):
        fetch(None)
    handler.redirected = False
    port = repr(fetch).split(":")[2].split("/")[0]
    with pytest.raises(OSError, match="answered 404"):
        HttpsFile(f"https://127.0.0.1:{port}/", context=client)(None)
    with pytest.raises(OSError, match="certificate"):
        HttpsFile(f"https://127.0.0.1:{port}/directory")(None)
