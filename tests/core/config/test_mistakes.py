"""A mistake in a policy file is said with its file, its line, the word and the nearest right one; all of them at once."""

from __future__ import annotations

import pytest

from postseal.core import ConfigError
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from tests.core.config.kit import GOOD, NOW, SIGNERS, line_of

MISTAKES = [
    # what was right, what the tired person wrote, words of the line that is named, words that the text must have
    (
        'sender = "billing-api"',
        'sendr = "billing-api"',
        "sendr",
        ["no option 'sendr'", "did you mean 'sender'"],
    ),
    ('sender = "billing-api"', "sender = billing-api", "sender =", ["'billing-api'", "quotes"]),
    ('sender = "billing-api"', "sender = 7", "sender =", ["sender must be text, not a whole number"]),
    (
        'sender = "billing-api"',
        'senders = ["billing-api"]',
        'senders = ["billing-api"]',
        ["belongs in a [[policy]]"],
    ),
    ("[keys.main]", "[key.main]", "[key.main]", ["no option 'key'", "[keys.NAME]"]),
    ('provider = "aws-kms"', 'provider = "aws_kms"', "aws_kms", ["'aws_kms'", "did you mean 'aws-kms'"]),
    ('provider = "aws-kms"\n', "", "[keys.main]", ["keys.main has no provider", "aws-kms"]),
    (
        'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"',
        'key_id = "my key"',
        "key_id",
        ["key_id", "'my key'"],
    ),
    ('key_id = "arn', 'key = "arn', 'key = "arn', ["no option 'key'", "did you mean 'key_id'"]),
    ('file = "archive.toml"', 'file = ["archive.toml"]', "file =", ["file must be", "a list"]),
    ('algorithm = "hmac-sha256"', 'algorithm = "hmac-sha-256"', "algorithm", ["did you mean 'hmac-sha256'"]),
    ('algorithm = "hmac-sha256"\n', "", "[signers.billing]", ["no algorithm", "ed25519"]),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = "aGVsbG8gd29ybGQ="',
        '"2026-10"',
        ["secret", "never stands in the policy file", "env"],
    ),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = { environment = "POSTSEAL_BILLING" }',
        '"2026-10"',
        ["'environment'", "'env'"],
    ),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = { env = "A", file = "B" }',
        '"2026-10"',
        ["one source"],
    ),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = { env = "A", encoding = "base46" }',
        '"2026-10"',
        ["'base46'", "'base64'"],
    ),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = { azure-secret = "billing" }',
        '"2026-10"',
        ["https://VAULT/secrets/NAME"],
    ),
    (
        'secret = { env = "POSTSEAL_BILLING" }',
        'secret = { env = "A", field = "b" }',
        '"2026-10"',
        ["field", "env"],
    ),
    (
        'state = "active", secret = { env = "POSTSEAL_BILLING" }',
        'state = "active"',
        '"2026-10"',
        ["no secret"],
    ),
    ('state = "active"', 'state = "activ"', '"2026-10"', ["'activ'", "'active'"]),
    ('state = "retired"', 'state = "active"', '"2026-04"', ["retired_until needs state = 'retired'"]),
    ('id = "2026-04"', 'id = "2026-10"', "retired_until", ["two keys have the id '2026-10'", "line 14"]),
    ("retired_until = 2027-03-01", "retired_until = 2027-03-01T00:00:00", "retired_until", ["no time zone"]),
    ('name = "orders"', 'nmae = "orders"', "nmae", ["no option 'nmae'", "'name'"]),
    ('name = "logs"', 'name = "orders"', 35, ["two policies have the name 'orders'", "line 19"]),
    ('name = "logs"', 'name = ""', 'name = ""', ["1 to 64 bytes"]),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["kafka:orders"]',
        'destinations = ["kafka:orders"]',
        ["both speak of 'kafka:orders'", "line 20"],
    ),
    ('destinations = ["kafka:logs"]', "destinations = []", "destinations = []", ["empty", "protect nothing"]),
    (
        'destinations = ["kafka:logs"]',
        'destinations = "kafka:logs"',
        '"kafka:logs"',
        ["must be a list", '["kafka:logs"]'],
    ),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["logs"]',
        '["logs"]',
        ["'logs'", "which broker", "'kafka:logs'"],
    ),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["kafak:logs"]',
        "kafak",
        ["'kafak'", "did you mean 'kafka'"],
    ),
    ('destinations = ["kafka:logs"]', 'destinations = ["kafka:^logs.*"]', "^logs", ["regular expression"]),
    ('destinations = ["kafka:logs"]', 'destinations = ["kafka:log s"]', "log s", ["can be no topic"]),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["rabbitmq:logs"]',
        "rabbitmq:logs",
        ["neither an exchange nor a queue", "'rabbitmq:/logs'"],
    ),
    ('destinations = ["kafka:logs"]', 'destinations = ["rabbitmq:shop/log#"]', "log#", ["whole words"]),
    ('destinations = ["kafka:logs"]', 'destinations = ["rabbitmq:shop/log*"]', "log*", ["one whole word"]),
    ('destinations = ["kafka:logs"]', 'destinations = ["sqs:log.s"]', "log.s", ["no queue of SQS"]),
    ('destinations = ["kafka:logs"]', 'destinations = ["arn:aws:s3:::logs"]', "s3", ["neither an SQS queue"]),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["kafka:logs", "kafka:logs"]',
        '"kafka:logs", ',
        ["twice"],
    ),
    ('destinations = ["kafka:logs"]\n', "", 34, ["no destinations"]),
    (
        'accept_from = ["sqs:dead-orders"]',
        'accept_from = ["servicebus:orders/$deadletterqueue"]',
        "$deadletterqueue",
        ["one of its destinations already"],
    ),
    ('protection = "privacy"', 'protection = "privcy"', "privcy", ["'privcy'", "did you mean 'privacy'"]),
    ('protection = "privacy"', 'protection = "Privacy"', '"Privacy"', ["'privacy'"]),
    ('protection = "privacy"', "protection = privacy", "protection", ["'privacy'", "quotes"]),
    ('protection = "privacy"', 'protection = "privacy', "protection", ["no TOML"]),
    (
        'protection = "privacy"',
        'protection = "integrity"',
        'keys = ["main", "archive"]',
        ["takes no keys", "'privacy'"],
    ),
    ('protection = "privacy"', 'protection = "confidentiality"', "sign =", ["signs nothing", "'privacy'"]),
    (
        'protection = "privacy"\nkeys = ["main", "archive"]',
        'protection = "integrity"\nsensitive = true',
        'protection = "integrity"',
        ["hides nothing", "sensitive"],
    ),
    (
        'keys = ["main", "archive"]',
        'keys = ["main", "archiv"]',
        '"archiv"',
        ["'archiv'", "did you mean 'archive'"],
    ),
    ('keys = ["main", "archive"]', 'keys = "main"', 'keys = "main"', ["must be a list", '["main"]']),
    ('keys = ["main"]\n', "", 34, ["needs keys"]),
    ('sign = "billing"', 'sign = "biling"', "biling", ["'biling'", "did you mean 'billing'"]),
    ('sign = "billing"\n', "", 'protection = "privacy"', ["needs sign"]),
    ('senders = ["billing-api", "shop-web"]', "senders = []", "senders = []", ["empty", "who may send"]),
    ('senders = ["billing-api", "shop-web"]\n', "", 'protection = "privacy"', ["needs senders"]),
    (
        'bind_headers = ["content-type", "correlation-id"]',
        'bind_headers = ["traceparent"]',
        26,
        ["traceparent", "change on the way"],
    ),
    ("bind_headers = [", "direct = true\nbind_headers = [", "direct = true", ["one key, not 2"]),
    ("bind_headers = [", 'direct = "yes"\nbind_headers = [', "direct =", ["true"]),
    (
        'destinations = ["kafka:logs"]',
        'destinations = ["kafka:logs"]\ndirect = true\ndata_key = { max_messages = 1 }',
        "data_key = { max_messages = 1 }",
        ["data_key speaks of data keys", "direct has none"],
    ),
    (
        'destinations = ["kafka:logs"]\nkeys = ["main"]',
        'destinations = ["kafka:logs"]\ndirect = true\nkeys = ["both"]\n[keys.both]\nprovider = "combined"\nkeys = ["main"]',
        'keys = ["both"]',
        ["direct needs a key service that encrypts bodies itself", "keys.both is combined", "aws-kms"],
    ),
    (
        'destinations = ["kafka:logs"]\nkeys = ["main"]',
        'destinations = ["kafka:logs"]\ndirect = true\nkeys = ["az"]\n[keys.az]\nprovider = "azure-key-vault"\nkey = "https://shop.vault.azure.net/keys/o"',
        "direct = true",
        ["needs protection = 'privacy'", "public key"],
    ),
    ("bind_headers = [", "bind_header = [", "bind_header =", ["did you mean 'bind_headers'"]),
    ('mode = "tolerate"', 'mode = "tolerant"', "tolerant", ["'tolerate'"]),
    ('mode = "tolerate"', 'mode = "enforce"', "tolerate_until", ["says nothing without"]),
    ("tolerate_until = 2027-01-31\n", "", 'mode = "tolerate"', ["needs tolerate_until"]),
    ("tolerate_until = 2027-01-31", "tolerate_until = 2026-01-31", "tolerate_until", ["past", "2026-01-31"]),
    (
        "tolerate_until = 2027-01-31",
        'tolerate_until = "2027-01-31"',
        "tolerate_until",
        ["date", "quotes away"],
    ),
    ("tolerate_until = 2027-01-31", "tolerate_until = 2027-02-31", "tolerate_until", ["2027-02-31"]),
    (
        "tolerate_until = 2027-01-31",
        "tolerate_until = 31.01.2027",
        "tolerate_until",
        ["'31.01.2027' is no date"],
    ),
    ('on_refused = "dead-letter"', 'on_refused = "deadletter"', "deadletter", ["'dead-letter'"]),
    ('on_refused = "dead-letter"', 'on_refused = "quarantine"', "on_refused", ["needs quarantine"]),
    (
        'on_refused = "dead-letter"',
        'on_refused = "quarantine"\nquarantine = "kafka:orders"',
        "quarantine =",
        ["its own destinations"],
    ),
    (
        'on_refused = "dead-letter"',
        'on_refused = "quarantine"\nquarantine = "sqs:bad*"',
        "sqs:bad*",
        ["not a pattern"],
    ),
    ('max_age = "10m"', "max_age = 600", "data_key", ["max_age = 600 has no unit", '"600s"']),
    ('max_age = "10m"', 'max_age = "600"', "data_key", ["no unit", '"600s"']),
    ('max_age = "10m"', 'max_age = "10min"', "data_key", ["'10min'", '"10m"']),
    ('max_age = "10m"', 'max_age = "0s"', "data_key", ["over 0"]),
    ('max_age = "10m"', 'max_age = "400d"', "data_key", ["'400d'", "30d"]),
    ("max_messages = 1048576", 'max_messages = "1048576"', "data_key", ["quotes away"]),
    ("max_messages = 1048576", "max_messages = 0", "data_key", ["1 to 268,435,456"]),
    ('max_bytes = "64GiB"', "max_bytes = 64", "data_key", ["no unit", '"64B"']),
    ('max_bytes = "64GiB"', 'max_bytes = "64gb"', "data_key", ["'64gb'", '"64GB"']),
    (
        'opening = { max_age = "5m"',
        'opening = { max_aeg = "5m"',
        "opening",
        ["'max_aeg'", "did you mean 'max_age'"],
    ),
    ('max_message_age = "14d"', 'max_age = "14d"', 'max_age = "14d"', ["'max_age'", "data_key"]),
    (
        '[[policy]]\nname = "logs"',
        '[[policies]]\nname = "logs"',
        "[[policies]]",
        ["'policies'", "[[policy]]"],
    ),
    ('max_message_age = "14d"', 'max_message_age = "14d"\nmax_message_age = "15d"', '"15d"', ["twice"]),
    (
        'key_id = "arn',
        'token = "hvs.CAESIJ1234567890abcdefghij"\nkey_id = "arn',
        "token",
        ["never stands in the policy file"],
    ),
    # what goes around a key service
    *(
        ('provider = "aws-kms"\n', f'provider = "aws-kms"\n{written}\n', written.split("\n")[-1], words)
        for written, words in [
            ("retry = 3", ["retry must be a table, not a whole number"]),
            ("retries = { attempts = 3 }", ["no option 'retries'", "did you mean 'retry'"]),
            ("retry = { attempt = 3 }", ["no option 'attempt'", "did you mean 'attempts'"]),
            ("retry = { attempts = 0 }", ["attempts must be 1 to 10, not 0"]),
            ("retry = { first_wait = 0.1 }", ["first_wait = 0.1 has no unit", '"0.1s"']),
            ("retry = { budget = 0.2 }", ["budget must be a whole number"]),
            ("retry = {}\nmax_attempts = 2", ["tries within tries", "leave max_attempts away"]),
            ("attempts = 3", ["no option 'attempts'", "retry = { ... }"]),
            ("deadline = 2", ["deadline = 2 has no unit", '"2s"']),
            ('deadline = "0s"', ["deadline must be over 0"]),
            ("breaker = true", ["breaker must be a table, not true or false"]),
            ("breaker = { failurs = 3 }", ["no option 'failurs'", "did you mean 'failures'"]),
            ("breaker = { failures = '5' }", ["failures must be a whole number", "quotes away"]),
            ('breaker = { wait = "2sec" }', ["'2sec'", '"2s"']),
            ("limit = 400", ["limit must be a table"]),
            ("limit = { calls = 400 }", ["limit has no per", 'per = "10s"']),
            ('limit = { per = "10s" }', ["limit has no calls", "what is the quota"]),
            ('limit = { calls = 400, per = "10 seconds" }', ['did you mean "10s"']),
            ('limit = { calls = 400, per = "10s", share = "a" }', ["did you mean 'shared'"]),
            ('hedge = "200ms"', ["no option 'hedge'", "a key of provider 'combined'"]),
        ]
    ),
    (
        'file = "archive.toml"',
        'file = "archive.toml"\nretry = {}',
        "retry",
        ["no option 'retry'"],
    ),
    (
        'provider = "local"\nfile = "archive.toml"',
        'provider = "combined"\nkeys = ["main"]\nhedge = 200',
        "hedge",
        ["hedge = 200 has no unit"],
    ),
    (
        'provider = "local"\nfile = "archive.toml"',
        'provider = "given"\nlimit = { calls = 9, per = "1s", shared = "kms" }\n[keys.third]\nprovider = "given"\nlimit = { calls = 8, per = "1s", shared = "kms" }',
        "calls = 8",
        ["keys.third and keys.archive share the quota 'kms'", "different things"],
    ),
]
"""What was right, what a tired person wrote, the line of that by its words or number, and words that the text must have."""


_ROOT = '[signers.cloud.keys.root]\nalgorithm = "aws-kms-es256"\nkey_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"'
_KEY = "0123456789abcdef0123456789abcdef"
MISTAKES_OF_SIGNERS = [
    # certificates
    ('algorithm = "x509"', 'algorithm = "x.509"', "x.509", ["'x.509'", "did you mean 'x509'"]),
    (
        'certificate = "billing.crt"',
        'certifcate = "billing.crt"',
        "certifcate",
        ["'certifcate'", "'certificate'"],
    ),
    (
        'certificate = "billing.crt"\n',
        "",
        "[[signers.shop.keys]]",
        ["either certificate, to sign with, or roots, to verify with", "neither"],
    ),
    (
        'certificate = "billing.crt"',
        'certificate = "billing.crt"\nroots = "ca.pem"',
        "[[signers.shop.keys]]",
        ["either certificate, to sign with, or roots"],
    ),
    (
        'private_key = { file = "billing.key" }\n',
        "",
        "[[signers.shop.keys]]",
        ["a key with certificate has no private_key"],
    ),
    (
        'private_key = { file = "billing.key" }',
        'private_key = "billing.key"',
        "private_key",
        ["never stands in the policy file"],
    ),
    (
        'private_key = { file = "billing.key" }\nsenders = ["billing-api"]',
        'private_key = { file = "billing.key" }',
        "[[signers.shop.keys]]",
        ["has no senders", "whose certificate"],
    ),
    ('roots = "ca.pem"', 'roots = ["ca.pem"]', "roots =", ["must be the path of a PEM file, not a list"]),
    ('roots = "ca.pem"', 'roots = ""', "roots =", ["roots is empty"]),
    (
        'roots = "ca.pem"',
        'roots = "ca.pem"\nsenders = ["billing-api"]',
        'senders = ["billing-api"]',
        ["senders says nothing of a key with roots", "those of names"],
    ),
    (
        'roots = "ca.pem"',
        'roots = "ca.pem"\ncarry = false',
        "carry",
        ["carry says nothing of a key with roots"],
    ),
    (
        'certificate = "billing.crt"',
        'certificate = "billing.crt"\nlists = ["shop.crl"]',
        "lists",
        ["lists says nothing of a key with certificate"],
    ),
    (
        'names = { billing-api = ["CN=billing-api", "O=Shop"], shop-web = ["DNS:web.shop.example"] }\n',
        "",
        "[[signers.shop.keys]]",
        ["a key with roots has no names"],
    ),
    ('"O=Shop"]', '"Shop"]', "names", ["'Shop' is no name of a certificate", "CN="]),
    (
        '["DNS:web.shop.example"]',
        '"DNS:web.shop.example"',
        "names",
        ["must be a list", '["DNS:web.shop.example"]'],
    ),
    ('["DNS:web.shop.example"]', "[]", "names", ["any certificate would do"]),
    (
        'names = { billing-api = ["CN=billing-api", "O=Shop"], shop-web = ["DNS:web.shop.example"] }',
        'names = ["CN=billing-api"]',
        "names",
        ["names must be a table, not a list", "billing-api"],
    ),
    (
        'names = { billing-api = ["CN=billing-api", "O=Shop"], shop-web = ["DNS:web.shop.example"] }',
        "names = {}",
        "names",
        ["nobody's certificate"],
    ),
    ('lists = ["shop.crl", ', 'lists = ["ftp://shop.crl", ', "lists", ["'ftp://shop.crl'", "https://HOST"]),
    ('lists = ["shop.crl", "https://ca.shop.example/shop.crl"]', "lists = []", "lists", ["leave it out"]),
    ('ocsp = "http://ocsp.shop.example"', "ocsp = true", "ocsp", ["must be an address, not true or false"]),
    (
        'ocsp = "http://ocsp.shop.example"',
        'ocsp = "ocsp.shop.example"',
        "ocsp",
        ["no address of a responder"],
    ),
    ('on_stale = "wait"', 'on_stale = "ignore"', "on_stale", ["'ignore'", "'accept'"]),
    (
        'lists = ["shop.crl", "https://ca.shop.example/shop.crl"]\nocsp = "http://ocsp.shop.example"\n',
        "",
        "on_stale",
        ["says nothing without lists or ocsp"],
    ),
    ('max_age = "10m"', 'max_age = "2d"', "max_age", ["over the most", "1d"]),
    ('id = "shop-ca"', 'id = "billing-2026"', "billing-2026", ["two keys have the id 'billing-2026'"]),
    # delegated keys
    ('algorithm = "delegated"', 'algorithm = "delegate"', '"delegate"', ["did you mean 'delegated'"]),
    (_ROOT + '\nrefresh = "1m"\n', "", "[[signers.cloud.keys]]", ["has no root"]),
    (
        'root = { algorithm = "ed25519", public_key = "root.pem" }',
        'root = "root.pem"',
        'root = "root.pem"',
        ["root must be a table", "aws-kms-es256"],
    ),
    ('algorithm = "aws-kms-es256"\n', "", "[signers.cloud.keys.root]", ["root has no algorithm", "es256"]),
    ('algorithm = "aws-kms-es256"', 'algorithm = "aws-kms"', '"aws-kms"', ["'aws-kms'", "did you mean"]),
    (
        'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"',
        'key_id = "alias/billing"',
        "alias/billing",
        ["'alias/billing' is not the ARN"],
    ),
    (
        'key_id = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"\n',
        "",
        "[signers.cloud.keys.root]",
        ["has no key_id"],
    ),
    ('refresh = "1m"', "refresh = 60", "refresh", ["no unit", '"60s"']),
    ('refresh = "1m"', 'lifetime = "1m"', 'lifetime = "1m"', ["no option 'lifetime'", "beside its root"]),
    ("/" + _KEY, "", "vault.azure.net", ["not https://VAULT/keys/NAME/VERSION", "name the version"]),
    (_KEY, "latest", "latest", ["name the version"]),
    ("max_calls = 60", "max_calls = 0", "max_calls", ["1 to 600,000"]),
    ("signs = false", 'signs = "no"', "signs", ["must be true or false"]),
    (
        'public_key = "root.pem"',
        'public_key = "root.pem", private_key = { file = "root.key" }',
        "root.pem",
        ["either private_key or public_key"],
    ),
    (
        'sender = "billing-api"\nlifetime',
        'sender = "biling-api"\nlifetime',
        "biling-api",
        ["'biling-api'", "not among senders"],
    ),
    (
        'senders = ["billing-api", "shop-web"]\nsender = "billing-api"\n',
        "",
        "[[signers.cloud.keys]]",
        ["has no senders", "whose signature"],
    ),
    ('lifetime = "20m"', 'lifetime = "30s"', "lifetime", ["at least 1m, not '30s'"]),
    ('lifetime = "20m"', 'lifetime = "2d"', "lifetime", ["over the most", "1d"]),
    ('delegate = "es256"', 'delegate = "rsa"', "delegate =", ["'rsa'", "'es256'"]),
    ('delegate = "es256"', 'revoked = ["abc"]', "revoked", ["'abc' is no key id", "64 hex digits"]),
]
"""The same of certificates and keys that delegate."""


def wrong(read, text):
    """Return the mistakes of *text*."""
    with pytest.raises(PolicyFileError) as error:
        read(text)
    return error.value.mistakes


def test_the_file_without_a_mistake_has_none(read):
    file = read(GOOD)
    assert [policy.name for policy in file.policies] == ["orders", "logs"]
    assert file.warnings == ()


@pytest.mark.parametrize(
    ("right", "written", "line", "words"), MISTAKES, ids=[f"{each[1]:.50}" for each in MISTAKES]
)
def test_one_mistake_is_said_once_with_its_line_and_what_would_be_right(read, right, written, line, words):
    text = GOOD.replace(right, written, 1)
    assert text != GOOD
    (mistake,) = wrong(read, text)
    lines = (
        [line] if isinstance(line, int) else [n for n, each in enumerate(text.split("\n"), 1) if line in each]
    )
    assert mistake.line in lines
    for word in words:
        assert word in mistake.text
    assert str(mistake).startswith(f"{mistake.file}:{mistake.line}:{mistake.column}: ")
    assert "\n" not in mistake.text


@pytest.mark.parametrize(
    ("right", "written", "line", "words"),
    MISTAKES_OF_SIGNERS,
    ids=[f"{each[1] or each[0]:.50}" for each in MISTAKES_OF_SIGNERS],
)
def test_one_mistake_of_a_signer_is_said_once_with_its_line(read, right, written, line, words):
    assert read(SIGNERS).warnings == ()
    text = SIGNERS.replace(right, written, 1)
    assert text != SIGNERS
    (mistake,) = wrong(read, text)
    assert mistake.line in [n for n, each in enumerate(text.split("\n"), 1) if line in each]
    for word in words:
        assert word in mistake.text
    assert "\n" not in mistake.text


def test_there_are_forty_mistakes_and_more():
    assert len(MISTAKES) >= 40
    assert len(MISTAKES_OF_SIGNERS) >= 40


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(read):
    text = (
        GOOD.replace('provider = "aws-kms"', 'provider = "aws"')
        .replace('algorithm = "hmac-sha256"', "algorithm = hmac-sha256")
        .replace('mode = "tolerate"', 'mode = "tolerant"')
        .replace('max_age = "10m"', "max_age = 10")
        .replace("kafka:logs", "kafak:logs")
    )
    mistakes = wrong(read, text)
    assert [mistake.line for mistake in mistakes] == [
        line_of('provider = "aws-kms"'),
        line_of("hmac-sha256"),
        line_of("mode ="),
        line_of("data_key"),
        line_of("kafka:logs"),
    ]


def test_the_error_is_a_config_error_whose_text_has_a_line_for_each(read):
    with pytest.raises(ConfigError) as error:
        read("sendr = 1\n")
    assert len(str(error.value).split("\n")) == len(error.value.mistakes) == 2
    assert "[[policy]]" in str(error.value)


def test_a_secret_in_the_file_is_never_shown(read):
    for value in ('"hunter2hunter2"', '"-----BEGIN PRIVATE KEY-----MIIE"', '["hunter2hunter2"]'):
        text = GOOD.replace('{ env = "POSTSEAL_BILLING" }', value)
        assert "hunter2" not in str(wrong(read, text))
        assert "MIIE" not in str(wrong(read, text))
    text = GOOD.replace('key_id = "arn', 'key_id = "-----BEGIN PRIVATE KEY-----arn')
    assert "looks like a secret" in str(wrong(read, text))


def test_a_private_key_is_refused_wherever_it_stands(read):
    text = GOOD.replace('sign = "billing"', "sign = '''\n-----BEGIN PRIVATE KEY-----\nMIIE\n'''")
    assert any("secret never stands" in mistake.text for mistake in wrong(read, text))


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path):
    (tmp_path / "policy.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"polici\.toml.*did you mean 'policy\.toml'"):
        PolicyFile.read(tmp_path / "polici.toml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "[[policy]]"),
        (b"\xff\xfe", "UTF-8"),
        (b'sender = "a"\nname = "\xe9"\n', "UTF-8"),
        (b"\xef\xbb\xbfsender = 'a'\n", "byte order mark"),
        (b"[[policy]]\n[[policy\n", "no TOML"),
        (b"policy = 7\n", "must be a list"),
        (b"policy = [7]\n", "must be a table"),
        (b"[policy]\nname = 'a'\n", "[[policy]], with two brackets"),
        (b"keys = 7\n[[policy]]\n", "[keys.main]"),
        (b"[keys]\nprovider = 'aws-kms'\n", "keys.provider must be a table"),
        (b"[keys.main]\n[keys.main]\n", "twice"),
        (b"x = " + b"[" * 5000, "no TOML"),
        (b"sender = 2027-13-45\n", "date"),
    ],
)
def test_what_is_hardly_a_policy_file_is_said_to_be_none(tmp_path, content, words):
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(path, now=NOW)
    assert words in str(error.value)
    assert all(mistake.line >= 1 for mistake in error.value.mistakes)


@pytest.mark.parametrize(
    ("combined", "words"),
    [
        ('["main", "both"]', "leads back to 'both'"),
        ('["other"]', "leads back to 'both'"),
        ('["man"]', "did you mean 'main'"),
        ("[]", "at least one"),
    ],
)
def test_combined_keys_name_others_that_there_are(read, combined, words):
    text = (
        GOOD
        + f'[keys.both]\nprovider = "combined"\nkeys = {combined}\n[keys.other]\nprovider = "combined"\nkeys = ["both"]\n'
    )
    assert any(
        words in mistake.text and mistake.line == line_of("keys = " + combined, text)
        for mistake in wrong(read, text)
    )


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "neither"),
        (', private_key = { file = "a" }, public_key = "b"', "either"),
        (', public_key = "b", passphrase = { env = "P" }', "passphrase is for"),
        (", private_key = 'key.pem'", "never stands"),
    ],
)
def test_a_pair_has_one_part(read, key, words):
    text = (
        GOOD
        + f'[signers.shop]\nalgorithm = "ed25519"\nkeys = [{{ id = "a", senders = ["shop-web"]{key} }}]\n'
    )
    assert any(words in mistake.text for mistake in wrong(read, text))


def test_a_signature_must_say_whose_it_is(read):
    text = GOOD + '[signers.shop]\nalgorithm = "es256"\nkeys = [{ id = "a", public_key = "a.pem" }]\n'
    assert "whose signature" in wrong(read, text)[0].text


def test_what_is_hardly_meant_is_a_warning_with_its_line(read):
    text = GOOD.replace("kafka:logs", "kafka:*") + '[keys.spare]\nprovider = "local"\nfile = "a"\n'
    overlap, spare = read(text).warnings
    assert overlap.line == line_of("kafka:*", text)
    assert "'kafka:orders' overlaps" in overlap.text
    assert "the more specific wins: policy 'orders'" in overlap.text
    assert f"line {line_of('kafka:orders')}" in overlap.text
    assert "keys.spare is used by no policy" in spare.text


@pytest.mark.parametrize("remembers", ['max_age = "2d"', ""])
def test_a_ledger_that_forgets_before_its_messages_are_stale_is_told_before_a_secret_is_fetched(
    read, remembers
):
    """A9: a copy could come when it has forgotten. Without a word it remembers for 14 days."""
    text = GOOD.replace('max_message_age = "14d"', 'max_message_age = "20d"')
    text += f'[ledger]\nstore = "memory"\n{remembers}\n'
    [mistake] = wrong(read, text)
    assert mistake.line == line_of("20d", text)
    assert "[ledger] remembers for" in mistake.text


def test_a_policy_that_speaks_of_duplicates_without_a_ledger_is_warned_as_the_program_may_have_one(read):
    text = GOOD.replace('on_refused = "dead-letter"', 'on_refused = "dead-letter"\non_duplicate = "refuse"')
    [warning] = read(text).warnings
    assert warning.line == line_of("on_duplicate", text)
    assert "add [ledger]" in warning.text
    assert read(text + '[ledger]\nstore = "memory"\n').warnings == ()


def test_of_a_ledger_that_is_wrong_itself_nothing_more_is_said(read):
    text = GOOD.replace('on_refused = "dead-letter"', 'on_refused = "dead-letter"\non_duplicate = "refuse"')
    [mistake] = wrong(read, text + '[ledger]\nstore = "memry"\n')
    assert "did you mean 'memory'" in mistake.text


def test_integrity_hides_nothing_and_is_refused_where_the_destination_is_sensitive(read):
    """E8: at load, before anything is sent."""
    text = GOOD.replace(
        'protection = "privacy"\nkeys = ["main", "archive"]', 'protection = "integrity"\nsensitive = true'
    )
    hides = [mistake for mistake in wrong(read, text) if "hides nothing" in mistake.text]
    assert [mistake.line for mistake in hides] == [line_of('"integrity"', text)]
