"""The stores of records: each passes one contract."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import ResourceExistsError
from azure.data.tables import TableClient
from moto import mock_aws

from postseal.core import (
    AzureTableReferences,
    ConfigError,
    DynamoReferences,
    KeyRefused,
    KeyUnavailable,
    MemoryReferences,
    SqliteReferences,
)
from tests.core.reference_store_contract import ReferenceStoreContract


class TestMemory(ReferenceStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryReferences()

    @pytest.fixture
    def again(self, store):
        return store


class TestSqlite(ReferenceStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return SqliteReferences(tmp_path / "references.db")

    @pytest.fixture
    def again(self, tmp_path, store):
        return SqliteReferences(tmp_path / "references.db")

    def test_the_file_is_its_owners_alone(self, store, tmp_path):
        assert (tmp_path / "references.db").stat().st_mode & 0o077 == 0

    def test_what_is_no_database_is_no_answer(self, tmp_path):
        (tmp_path / "other").write_bytes(b"something else that is long enough to be looked at" * 100)
        with pytest.raises(KeyUnavailable):
            SqliteReferences(tmp_path / "other")

    def test_old_records_can_be_forgotten(self, store):
        store.put(bytes(16), b"record")
        assert store.forget(3600) == 0
        assert store.get(bytes(16)) == b"record"
        assert store.forget(-1) == 1
        assert store.get(bytes(16)) is None


class TestDynamoDb(ReferenceStoreContract):
    @pytest.fixture
    def client(self):
        with mock_aws():
            client = boto3.client(
                "dynamodb",
                region_name="eu-west-1",
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
            client.create_table(
                TableName="references",
                KeySchema=[{"AttributeName": "reference", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "reference", "AttributeType": "B"}],
                BillingMode="PAY_PER_REQUEST",
            )
            yield client

    @pytest.fixture
    def store(self, client):
        return DynamoReferences(client, "references")

    @pytest.fixture
    def again(self, client):
        return DynamoReferences(client, "references", keep=86400)

    def test_a_record_says_when_it_may_go(self, client, again):
        again.put(bytes(16), b"record")
        item = client.get_item(TableName="references", Key={"reference": {"B": bytes(16)}})["Item"]
        assert int(item["expires"]["N"]) > 1_700_000_000

    def test_a_table_that_is_not_there_is_a_no(self, client):
        with pytest.raises(KeyRefused, match="ResourceNotFoundException"):
            DynamoReferences(client, "nowhere").get(bytes(16))

    def test_what_is_no_client_is_named(self):
        with pytest.raises(ConfigError, match="boto3 client of dynamodb"):
            DynamoReferences(object(), "references")
        with pytest.raises(ConfigError, match="keep must be over 0"):
            DynamoReferences(boto3.client("dynamodb", region_name="eu-west-1"), "references", keep=0)


class _Tables(BaseHTTPRequestHandler):
    """Azure Storage tables over HTTP, as far as one row goes. Source: Azure Storage, Table service REST API."""

    rows: dict[str, dict[str, object]]
    status: int
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        row = self.rows.get(self._row())
        if self.status:
            self._answer(self.status, {"odata.error": {"code": "Denied", "message": {"value": "no"}}})
        elif row is None:
            self._answer(404, {"odata.error": {"code": "ResourceNotFound", "message": {"value": "none"}}})
        else:
            self._answer(200, row)

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.rows[self._row()] = body
        self._answer(204, None)

    def _row(self) -> str:
        found = re.fullmatch(
            r"/account/records\(PartitionKey='postseal',RowKey='([0-9a-f]{32})'\)",
            self.path.partition("?")[0],
        )
        assert found, self.path
        return found[1]

    def _answer(self, status: int, body: object) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 204:
            self.send_header("ETag", 'W/"1"')
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class TestAzureTable(ReferenceStoreContract):
    """Against a double; with ``POSTSEAL_TEST_AZURE_TABLES``, a connection string, against Azurite or the service itself."""

    @pytest.fixture
    def tables(self):
        handler = type("Tables", (_Tables,), {"rows": {}, "status": 0})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.01])
            thread.start()
            yield handler, f"http://127.0.0.1:{server.server_port}/account"
            server.shutdown()
            thread.join()

    @pytest.fixture
    def make(self, tables):
        given = os.environ.get("POSTSEAL_TEST_AZURE_TABLES")
        clients = []

        def make() -> TableClient:
            if given:
                client = TableClient.from_connection_string(given, table_name="records")
                with suppress(ResourceExistsError):
                    client.create_table()
                clients.append(client)
                return client
            client = TableClient(
                tables[1],
                "records",
                credential=AzureNamedKeyCredential("account", "a2V5"),
                retry_total=0,
            )
            clients.append(client)
            return client

        yield make
        for client in clients:
            client.close()

    @pytest.fixture
    def store(self, make):
        return AzureTableReferences(make())

    @pytest.fixture
    def again(self, make):
        return AzureTableReferences(make())

    @pytest.mark.parametrize(
        ("status", "kind"), [(403, KeyRefused), (404, KeyRefused), (503, KeyUnavailable)]
    )
    def test_a_no_and_no_answer_are_told_apart(self, store, tables, status, kind):
        tables[0].status = status
        with pytest.raises(kind, match="Azure table records"):
            store.get(bytes(16))

    def test_a_service_that_is_gone_is_no_answer(self):
        with (
            TableClient(
                "http://127.0.0.1:9/account",
                "records",
                credential=AzureNamedKeyCredential("account", "a2V5"),
                retry_total=0,
            ) as client,
            pytest.raises(KeyUnavailable),
        ):
            AzureTableReferences(client).put(bytes(16), b"record")

    def test_what_is_no_client_is_named(self):
        with pytest.raises(ConfigError, match="TableClient"):
            AzureTableReferences(object())
