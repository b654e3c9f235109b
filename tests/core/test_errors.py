"""The tree of errors, by what the caller does next."""

from __future__ import annotations

import pickle

import pytest

from postseal.core import (
    ConfigError,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    PostsealError,
    Refused,
    TooLarge,
    Verdict,
)
from postseal.core.errors import nearest


def test_every_error_is_a_postseal_error():
    for kind in (ConfigError, KeyRefused, KeyUnavailable, MissingExtraError, Refused, TooLarge):
        assert issubclass(kind, PostsealError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(MissingExtraError, ImportError)


def test_what_passes_is_no_refusal():
    """A key service that is down never settles a message: no `except Refused` may catch it."""
    assert not issubclass(KeyUnavailable, Refused)
    assert KeyUnavailable.verdict is Verdict.KEY_UNAVAILABLE


def test_the_text_of_a_refusal_tells_a_forger_nothing_but_the_verdict():
    refused = Refused(Verdict.FORGED, "the commitment is another", destination="kafka:orders")
    assert str(refused) == "message refused at kafka:orders: forged"
    assert refused.detail == "the commitment is another"


def test_a_refusal_survives_a_worker_process():
    refused = pickle.loads(pickle.dumps(Refused(Verdict.STALE, "old", destination="sqs:a")))  # noqa: S301 - our own
    assert (refused.verdict, refused.detail, refused.destination) == (Verdict.STALE, "old", "sqs:a")


def test_a_missing_extra_names_what_to_install():
    error = MissingExtraError.naming("kafka", "postseal.kafka", ImportError("no", name="confluent_kafka"))
    assert (
        str(error)
        == "postseal.kafka needs confluent_kafka, which is not installed: pip install 'postseal[kafka]'"
    )


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("privcy", "; did you mean 'privacy'?"),
        ("xyz", "; there are: 'integrity', 'privacy'"),
        ("", "; there are: 'integrity', 'privacy'"),
    ],
)
def test_the_nearest_word_is_named_or_all_of_them(word, text):
    assert nearest(word, ["privacy", "integrity"]) == text


def test_no_words_give_no_advice():
    assert nearest("x", []) == ""


def test_the_words_of_verdicts_are_those_of_the_spec():
    from pathlib import Path

    spec = (Path(__file__).parents[2] / "core" / "SPEC.md").read_text("utf-8")
    section = spec.split("### 10.4")[1].split("\n## ")[0]
    assert {f"`{verdict.value}`" for verdict in Verdict} == set(
        __import__("re").findall(r"`[a-z-]+`", section)
    )
