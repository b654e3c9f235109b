"""``postseal explain`` (A11, B8): what it says of a policy is what the policy does."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from postseal.core.cli._app import run
from postseal.core.explaining import words_of
from tests.core.config.kit import GOOD, SIGNERS

ENFORCED = GOOD.replace('mode = "tolerate"\ntolerate_until = 2027-01-31\n', "")
SIGNED = ENFORCED.replace('protection = "privacy"\nkeys = ["main", "archive"]', 'protection = "integrity"')


@pytest.fixture
def explained(tmp_path, capsys):
    def explain(text, *args):
        path = tmp_path / "postseal.toml"
        path.write_text(text)
        assert run(["explain", str(path), "--json", *args]) == 0
        found = json.loads(capsys.readouterr().out)
        return {each["policy"]: each for each in found["policies"]}

    return explain


def states(policy):
    return {state["name"]: (state["reads"], state["forges"]) for state in policy["states"]}


def test_privacy_is_closed_to_all_but_the_process_and_the_key_service(explained):
    """A11: which state is covered by what."""
    assert states(explained(ENFORCED)["orders"]) == {
        "in use": (True, True),
        "in transit": (False, False),
        "at rest": (False, False),
        "broker administrator": (False, False),
        "provider-side encryption": (False, False),
        "key service": (True, False),
        "logs and traces": (True, False),
    }


def test_confidentiality_lets_the_key_service_write(explained):
    """What THREATS.md says of it: it can seal in confidentiality."""
    logs = explained(ENFORCED)["logs"]
    assert states(logs)["key service"] == (True, True)
    assert "who sent a message is not proved" in logs["cautions"]


def test_integrity_is_read_by_everybody_and_forged_by_nobody(explained):
    orders = explained(SIGNED)["orders"]
    assert states(orders)["at rest"] == (True, False)
    assert states(orders)["key service"] == (False, False)
    assert [row["who"] for row in orders["readers"]] == [
        "everybody who can see a message, the broker's administrators included"
    ]
    assert not [period for period in orders["periods"] if "data key" in period["what"]]


def test_tolerating_is_an_open_door_until_its_date(explained):
    orders = explained(GOOD)["orders"]
    assert states(orders)["in transit"] == (False, True)
    assert "clear text from anybody is accepted until 2027-01-31" in orders["cautions"]
    assert orders["writers"][0]["who"] == "everybody who can send to the broker"


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_what_is_not_in_force_protects_nothing(mode, explained):
    orders = explained(ENFORCED.replace('on_refused = "dead-letter"', f'mode = "{mode}"'))["orders"]
    assert states(orders)["broker administrator"] == (True, True)
    assert f"mode is {mode}: it protects nothing" in orders["cautions"]


def test_a_direct_policy_shows_the_key_service_every_body_and_keeps_no_key(explained):
    """D2."""
    text = ENFORCED.replace('destinations = ["kafka:logs"]', 'destinations = ["kafka:logs"]\ndirect = true')
    logs = explained(text)["logs"]
    assert states(logs)["key service"] == (True, True)
    [service] = [state for state in logs["states"] if state["name"] == "key service"]
    assert "every body passes it in clear" in service["why"]
    assert [(period["what"], period["seconds"]) for period in logs["periods"][:1]] == [
        ("revocation window", 0.0)
    ]
    assert not [period for period in logs["periods"] if "data key" in period["what"]]
    assert "whoever may encrypt with its key" in [row["who"] for row in logs["writers"]]
    assert any("quota" in caution for caution in logs["cautions"])


@pytest.mark.parametrize(
    ("modes", "seen", "forged", "says"),
    [
        (
            'mode = "observe"\nproduce_mode = "enforce"',
            False,
            True,
            "mode of consumers is observe: clear text from anybody is handed on",
        ),
        ('produce_mode = "off"', True, False, "mode of producers is off: bodies are not sealed"),
        (
            'produce_mode = "observe"\nconsume_mode = "off"',
            True,
            True,
            "mode is observe (producers), off (consumers): it protects nothing",
        ),
    ],
)
def test_each_side_is_explained_by_its_own_mode(modes, seen, forged, says, explained):
    """A11."""
    orders = explained(ENFORCED.replace('on_refused = "dead-letter"', modes))["orders"]
    assert states(orders)["broker administrator"] == (seen, forged)
    assert says in orders["cautions"]


def test_a_mac_proves_the_group_and_a_signature_the_sender(explained):
    """D9."""
    [group] = explained(ENFORCED)["orders"]["writers"]
    assert group["who"].endswith("billing-api, shop-web, and every consumer")
    ring = ENFORCED[ENFORCED.index("[signers.billing]") : ENFORCED.index("[[policy]]")]
    signer = '[signers.billing]\nalgorithm = "ed25519"\nkeys = [{ id = "k", senders = ["billing-api"], public_key = "k.pem" }]\n\n'
    writers = explained(ENFORCED.replace(ring, signer))["orders"]["writers"]
    assert [row["who"] for row in writers] == ["billing-api", "shop-web"]


def test_certificates_and_keys_that_delegate_are_called_what_they_are(explained):
    """A6, D9: who may use a root can write, its administrators can, and who certifies can."""
    found = explained(SIGNERS)
    writers = {each["who"]: each["why"] for each in found["orders"]["writers"]}
    assert list(writers) == ["billing-api", "shop-web", "the authorities that are trusted"]
    assert "certificate with that sender's names" in writers["shop-web"]
    writers = {each["who"]: each["why"] for each in found["bills"]["writers"]}
    assert list(writers) == [
        "whoever may sign with 'billing-aws', key arn:aws:kms:eu-west-1:111122223333:key/1234abcd",
        "the administrators of that AWS KMS",
        "whoever may sign with 'billing-azure', key https://billing.vault.azure.net/keys/signing/0123456789abcdef0123456789abcdef",
        "the administrators of that Azure Key Vault",
        "whoever may sign with 'billing-mac', key arn:aws:kms:eu-west-1:111122223333:key/mac",
        "whoever may sign with 'billing-offline'",
    ]
    assert any("forged delegation costs a call" in each for each in found["bills"]["cautions"])
    periods = {each["what"]: each["seconds"] for each in found["bills"]["periods"]}
    assert (periods["delegation by billing-aws"], periods["delegation by billing-azure"]) == (1200, 600)
    assert not any("neither lists nor ocsp" in each for each in found["orders"]["cautions"])
    periods = {each["what"]: each["seconds"] for each in found["orders"]["periods"]}
    assert periods["revocation window of shop-ca"] == 600
    nothing = SIGNERS.replace(
        'lists = ["shop.crl", "https://ca.shop.example/shop.crl"]\nocsp = "http://ocsp.shop.example"\non_stale = "wait"\n',
        "",
    )
    assert any("neither lists nor ocsp" in each for each in explained(nothing)["orders"]["cautions"])
    held = SIGNERS.replace(
        '{ algorithm = "ed25519", public_key = "root.pem" }',
        '{ algorithm = "hmac-sha256", secret = { env = "A" } }',
    )
    writers = [each["who"] for each in explained(held)["bills"]["writers"]]
    assert "whoever holds its secret, and so every consumer" in writers


def test_the_windows_are_those_of_the_policy(explained):
    """A13: the printed window. B5: cryptoperiods of data keys and of signing keys."""
    periods = {each["what"]: each for each in explained(ENFORCED)["orders"]["periods"]}
    assert periods["revocation window"]["seconds"] == 300
    assert periods["the same while the key service does not answer"]["seconds"] == 3900
    assert periods["cryptoperiod of a data key"]["seconds"] == 600
    assert periods["signing key 2026-04"]["says"] == "retired, verifies until 2027-03-01"
    assert periods["freshness"]["seconds"] == 14 * 86400


def test_provider_side_encryption_is_called_what_it_is(explained):
    """B8."""
    [state] = [s for s in explained(ENFORCED)["orders"]["states"] if s["name"] == "provider-side encryption"]
    assert "SQS server-side encryption" in state["where"]
    assert "customer-managed" in state["where"]
    assert "adds nothing" in state["why"]


def test_one_destination_is_explained_by_its_policy(explained, tmp_path, capsys):
    assert list(explained(ENFORCED, "--destination", "sqs:orders-eu")) == ["orders"]
    assert run(["explain", str(tmp_path / "postseal.toml"), "--destination", "kafka:order"]) == 2
    assert "did you mean 'kafka:orders'" in capsys.readouterr().err


def test_the_terminal_has_all_of_it(tmp_path, capsys):
    path = tmp_path / "postseal.toml"
    path.write_text(GOOD)
    assert run(["explain", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("can read", "can write", "revocation window", "provider-side encryption", "stays visible"):
        assert words in out


def test_the_page_needs_nothing_else_and_quotes_what_the_file_says(tmp_path, capsys):
    path, page = tmp_path / "postseal.toml", tmp_path / "page.html"
    path.write_text(ENFORCED.replace('name = "logs"', 'name = "<script>alert(1)</script>"'))
    assert run(["explain", str(path), "--html", str(page)]) == 0
    assert capsys.readouterr().out == ""
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    pictures = [f"<svg{part.partition('</svg>')[0]}</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 2
    for picture in pictures:
        assert "broker" in "".join(ET.fromstring(picture).itertext())  # noqa: S314 - of our own making


def test_a_page_that_cannot_be_written_is_said_in_a_line(tmp_path, capsys):
    path = tmp_path / "postseal.toml"
    path.write_text(GOOD)
    assert run(["explain", str(path), "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"), [(300, "5 min"), (3600, "1 h"), (3900, "65 min"), (1209600, "14 d"), (45, "45 s")]
)
def test_durations_are_said_as_people_do(seconds, words):
    assert words_of(seconds) == words
