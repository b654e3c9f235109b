"""The JSON Schema for editors: made from the table that reads the file, and published beside the docs."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import tomllib
from pathlib import Path

import pytest

from postseal.core import DataKeyLimits, OpeningLimits, Policy
from postseal.core.config import PolicyFile, policy_schema
from postseal.core.config._keys import BREAKER, LIMIT, RETRY
from postseal.core.config._policies import POLICY
from postseal.core.resilience import Breaker, Limiter, Retrying
from tests.core.config import reference
from tests.core.config.kit import GOOD, SIGNERS

ROOT = Path(__file__).parents[3]


def validator():
    jsonschema = pytest.importorskip("jsonschema")
    return jsonschema.Draft202012Validator(policy_schema())


def as_json(value):
    """As editors show TOML to a schema: dates are text."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value


def test_the_published_schema_is_that_of_the_reader():
    """Made by: postseal policy schema > docs/policy.schema.json."""
    assert json.loads((ROOT / "docs" / "policy.schema.json").read_text("utf-8")) == policy_schema()


def test_the_reference_of_the_docs_is_that_of_the_reader():
    """Made by: python -m tests.core.config.reference."""
    assert reference.PAGE.read_text("utf-8").partition(reference.MARK)[2] == reference.reference()


def test_the_example_of_the_docs_has_no_mistake(tmp_path):
    example = reference.PAGE.read_text("utf-8").split("```toml\n")[1].split("```")[0]
    path = tmp_path / "postseal.toml"
    path.write_text(example)
    file = PolicyFile.read(path)
    assert [policy.name for policy in file.policies] == ["orders"]
    assert file.warnings == ()


def test_every_option_of_a_policy_can_be_said_in_a_file():
    assert set(POLICY.options) == set(inspect.signature(Policy).parameters)
    for name, kind in (("data_key", DataKeyLimits), ("opening", OpeningLimits)):
        assert set(POLICY.options[name].kind.options) == set(inspect.signature(kind).parameters)


def test_what_the_reference_says_of_resilience_is_what_holds_in_code():
    for table, kind in ((RETRY, Retrying), (BREAKER, Breaker), (LIMIT, Limiter)):
        parameters = inspect.signature(kind).parameters
        for name, option in table.options.items():
            if name == "shared":
                continue
            read = option.kind.read(option.default, None) if option.default is not None else None
            if name == "budget":
                read /= 100
            default = parameters[name].default
            assert read == (None if default is inspect.Parameter.empty else default), name


@pytest.mark.parametrize("text", [GOOD, SIGNERS])
def test_the_schema_takes_what_the_reader_takes(text):
    assert list(validator().iter_errors(as_json(tomllib.loads(text)))) == []


@pytest.mark.parametrize(
    ("right", "written"),
    [
        ('algorithm = "x509"', 'algorithm = "x.509"'),
        ("names = { billing-api", "nmaes = { billing-api"),
        ('on_stale = "wait"', 'on_stale = "ignore"'),
        ('algorithm = "aws-kms-es256"', 'algorithm = "aws-kms"'),
        ('key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"\n', ""),
        ("max_calls = 60", "max_calls = 0"),
        ('delegate = "es256"', 'delegate = "rsa"'),
        ("signs = false", 'signs = "no"'),
    ],
)
def test_the_schema_refuses_what_an_editor_can_see_of_signers(right, written):
    text = SIGNERS.replace(right, written, 1)
    assert text != SIGNERS
    assert list(validator().iter_errors(as_json(tomllib.loads(text)))) != []


@pytest.mark.parametrize(
    ("right", "written"),
    [
        ('sender = "billing-api"', "sendr = 'x'"),
        ('provider = "aws-kms"', 'provider = "aws"'),
        ('key_id = "arn', 'key_idd = "arn'),
        ('algorithm = "hmac-sha256"', 'algorithm = "hmac"'),
        ('{ env = "POSTSEAL_BILLING" }', '"secret"'),
        ('{ env = "POSTSEAL_BILLING" }', '{ env = "A", file = "B" }'),
        ('protection = "privacy"', 'protection = "privcy"'),
        ('max_age = "10m"', "max_age = 600"),
        ('max_bytes = "64GiB"', 'max_bytes = "64gb"'),
        ("max_messages = 1048576", "max_messages = 0"),
        ('destinations = ["kafka:logs"]', "destinations = []"),
        ('name = "logs"\n', ""),
        ('provider = "aws-kms"', 'provider = "aws-kms"\ndeadline = 2'),
        ('provider = "aws-kms"', 'provider = "aws-kms"\nretry = { attempt = 3 }'),
        ('provider = "aws-kms"', 'provider = "aws-kms"\nlimit = { calls = 400 }'),
        ('file = "archive.toml"', 'file = "archive.toml"\nbreaker = {}'),
    ],
)
def test_the_schema_refuses_what_an_editor_can_see(right, written):
    text = GOOD.replace(right, written, 1)
    assert list(validator().iter_errors(as_json(tomllib.loads(text)))) != []
