"""The compose file: no engine runs it here, so what can be read is checked."""

import json
import re
from pathlib import Path

import pytest
import yaml

from integration.servers import (
    AwsEmulator,
    Kafka,
    KeyVault,
    OpenBao,
    RabbitMq,
    Redis,
    ServerUnavailable,
    ServiceBus,
)
from integration.servers.servicebus import ServiceBusTestServer
from integration.servers.servicebus.config import create_all

DOCKER = Path(__file__).parents[2] / "docker"
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
CONFIG = json.loads((DOCKER / "servicebus" / "Config.json").read_text())["UserConfig"]["Namespaces"][0]


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_has_a_version(name):
    service = SERVICES[name]
    if "build" in service:
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    else:
        assert re.search(r":[\w-]*\d+\.\d+|:\d{4}-CU\d+", service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_port_is_open_on_the_loopback_interface_only_and_can_be_chosen(name):
    text = (DOCKER / "README.md").read_text()
    for port in SERVICES[name].get("ports", []):
        found = re.fullmatch(r"127\.0\.0\.1:\$\{(POSTSEAL_\w+_PORT):-(\d+)\}:(\d+|\$\{\1:-\2\})", port)
        assert found
        assert f"`{found[1]}`" in text
        assert found[2] in text


def test_no_two_services_want_the_same_port():
    ports = re.findall(
        r'- "127\.0\.0\.1:\$\{POSTSEAL_\w+_PORT:-(\d+)\}:', (DOCKER / "compose.yaml").read_text()
    )

    assert len(set(ports)) == len(ports) > 6


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"servicebus"}))
def test_each_service_says_when_it_is_well(name):
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert SERVICES[name]["healthcheck"]["retries"] == 90


def test_services_are_named_as_the_servers_of_the_tests(monkeypatch):
    monkeypatch.setenv("ACCEPT_EULA", "Y")
    for kind in (Kafka, AwsEmulator, RabbitMq, ServiceBus, KeyVault, OpenBao, Redis):
        launch = kind()._container()
        assert launch.command[-1] in SERVICES
        used = set(re.findall(r"\$\{(POSTSEAL_\w+_PORT)", str(SERVICES[launch.command[-1]])))
        assert used <= launch.environment.keys()


def test_no_licence_is_accepted_for_anybody(monkeypatch):
    monkeypatch.delenv("ACCEPT_EULA", raising=False)

    with pytest.raises(ServerUnavailable, match="ACCEPT_EULA"):
        ServiceBus()._container()
    for name in ("servicebus", "mssql"):
        assert SERVICES[name]["environment"]["ACCEPT_EULA"] == "${ACCEPT_EULA:-N}"
        assert SERVICES[name]["profiles"] == ["servicebus"]


# Microsoft's emulator


def test_the_emulators_entities_are_within_its_limits():
    """Source: the emulator's Config-schema.json."""
    entities = [*CONFIG["Queues"], *CONFIG["Topics"]]
    parts = [*CONFIG["Queues"], *(one for topic in CONFIG["Topics"] for one in topic["Subscriptions"])]

    assert CONFIG["Name"] == "sbemulatorns"
    assert len({entity["Name"] for entity in entities}) == len(entities) <= 50
    for part in parts:
        assert part["Properties"]["DefaultMessageTimeToLive"] == "PT1H"
        assert 1 <= part["Properties"]["MaxDeliveryCount"] <= 10
        assert part["Properties"]["LockDuration"] in ("PT5S", "PT1M")


def test_our_server_understands_the_emulators_configuration():
    with ServiceBusTestServer() as server:
        create_all(server, {"UserConfig": {"Namespaces": [CONFIG]}})
        for queue in CONFIG["Queues"]:
            assert server.count(queue["Name"]) == 0
        assert server.count("topic-01/Subscriptions/second") == 0


def test_each_test_gets_an_entity_of_the_emulator_that_none_had(monkeypatch):
    monkeypatch.setenv("POSTSEAL_TEST_SERVICEBUS", "Endpoint=sb://127.0.0.1;UseDevelopmentEmulator=true;")
    emulator = ServiceBus()
    monkeypatch.setattr(emulator, "_empty", lambda name: None)

    plain = [emulator.new_queue() for _ in range(3)]
    short = emulator.new_queue(lock_duration=5, max_delivery_count=3)
    sessions = emulator.new_queue(requires_session=True)
    topics = [emulator.new_topic("first") for _ in range(10)]

    assert len({*plain, short, sessions, *topics}) == 15
    assert short.startswith("short-")
    assert sessions.startswith("sessions-")
    with pytest.raises(ServerUnavailable, match="no more"):
        emulator.new_topic("first")
    with pytest.raises(ServerUnavailable, match="no more"):
        emulator.new_queue(lock_duration=7)
    with pytest.raises(ServerUnavailable, match="only the test server"):
        emulator.inject("send", "drop")
