"""Policies about Commands: known hosts, and no secret in what the state shows."""

import json

import pytest
from pulumi_policy.policy import _NotApplicableError

from components.host_agent import INSTALL
from policy import commands
from tests.policy.support import UNKNOWN, policy_named, told

PINNED = policy_named(commands.POLICIES, "host-keys-pinned")
SECRETS = policy_named(commands.POLICIES, "no-secret-in-command")

REMOTE = "command:remote:Command"
KEY = "ssh-ed25519 AAAA"


@pytest.mark.parametrize("kind", [REMOTE, "command:remote:CopyToRemote"])
def test_a_host_that_shows_a_known_key_passes(kind: str) -> None:
    assert told(PINNED, kind, {"connection": {"host": "10.0.0.1", "hostKey": KEY}}) == []


@pytest.mark.parametrize(
    "connection",
    [
        {"host": "10.0.0.1"},
        {"host": "10.0.0.1", "hostKey": ""},
        {"host": "10.0.0.2", "hostKey": KEY, "proxy": {"host": "10.0.0.1"}},
    ],
)
def test_a_host_or_proxy_without_a_known_key_is_refused(connection: dict[str, object]) -> None:
    (said,) = told(PINNED, REMOTE, {"connection": connection})
    assert "10.0.0.1" in said
    assert "epibackup trust" in said


def test_a_connection_that_cannot_be_read_is_not_taken_for_a_good_one() -> None:
    with pytest.raises(_NotApplicableError) as caught:
        told(PINNED, REMOTE, {"connection": "[secret]"})
    assert "cannot be read" in caught.value.message


def test_a_local_command_has_no_host() -> None:
    assert told(PINNED, "command:local:Command", {"create": "true"}) == []


SECRET_TEXTS = [
    ("a private key", "echo '-----BEGIN OPENSSH PRIVATE KEY-----' > key"),
    ("a private key", "-----BEGIN PRIVATE KEY-----\nMIIE"),
    ("an age identity", "AGE-SECRET-KEY-1QQQQQQQQQQ"),
    ("a password in a URL", "psql postgres://shop:hunter2@db/shop"),
    ("an AWS access key", "aws configure set x AKIAIOSFODNN7EXAMPLE"),
    ("an Azure account key", "AccountName=x;AccountKey=abcdefghijklmnopqrstuvwxyz0123456789=="),
    (
        "an Azure signature",
        "curl 'https://a.file.core.windows.net/s?sv=1&sig=abcdefghijklmnopqrst'",
    ),
    ("a token", "curl -H 'Authorization: token ghp_abcdefghijklmnopqrstuvwxyz0123456789'"),
    ("a password or token", "PGPASSWORD=hunter22 psql"),
    ("a password or token", '{"password": "hunter22"}'),
    ("a password or token", "mysql --password=hunter22"),
]


@pytest.mark.parametrize("field", ["create", "update", "delete", "stdin"])
@pytest.mark.parametrize(("title", "text"), SECRET_TEXTS)
def test_a_secret_in_a_command_is_refused_and_not_repeated(
    field: str, title: str, text: str
) -> None:
    said = told(SECRETS, REMOTE, {field: text})
    assert any(f"`{field}` of the Command it has {title}" in message for message in said)
    assert "hunter2" not in "".join(said)


def test_a_secret_in_an_environment_is_refused() -> None:
    (said,) = told(SECRETS, REMOTE, {"environment": {"PGPASSWORD": "hunter22", "LANG": "C"}})
    assert "`environment`" in said


@pytest.mark.parametrize(
    "text",
    [
        INSTALL,
        json.dumps({"settings": {"password_file": "/etc/epibackup/password", "token": None}}),
        "psql --password=$PASSWORD",
        'mysql --password="${PASSWORD}"',
        "curl https://host/path@version",
        "scp user@host:/file https://host:8443/",
        "systemctl reload haproxy",
    ],
)
def test_what_only_looks_like_a_secret_passes(text: str) -> None:
    assert told(SECRETS, REMOTE, {"create": text, "stdin": text}) == []


def test_a_secret_of_the_configuration_is_found_wherever_it_went(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"epibackup:hidden": "open sesame", "epibackup:many": '{"a": ["another one"]}'}
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({**config, "epibackup:plain": "a plain word"}))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(list(config)))
    (said,) = told(SECRETS, REMOTE, {"create": "echo open sesame; echo a plain word"})
    assert "the secret epibackup:hidden" in said
    assert "sesame" not in said
    assert told(SECRETS, REMOTE, {"stdin": "another one"}) != []


def test_a_text_that_is_not_known_yet_hides_no_other() -> None:
    (said,) = told(SECRETS, REMOTE, {"create": UNKNOWN, "stdin": "PGPASSWORD=hunter22"})
    assert "`stdin`" in said
