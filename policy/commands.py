"""Policies about Commands: whom they talk to, and what is in their text."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi.runtime
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

REMOTE = re.compile(r"command:remote:\w+")
COMMAND = re.compile(r"command:(remote|local):(Command|run)")

TEXTS = ("create", "update", "delete", "environment", "stdin", "triggers")
"""The inputs of a Command that are stored in the state, shown in a preview or in an error."""

SHORTEST_SECRET = 6
"""Shorter secrets of the configuration are not looked for: they are found by accident."""

PATTERNS = {
    "a private key": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    "an age identity": re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+"),
    "a password in a URL": re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@'\"]*:[^/\s@'\"$]+@", re.I),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an Azure account key": re.compile(r"AccountKey=[A-Za-z0-9+/=]{20,}"),
    "an Azure signature": re.compile(r"[?&]sig=[A-Za-z0-9%+/=]{20,}"),
    "a token": re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
        r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)"
    ),
    "a password or token": re.compile(
        r"(?:password|passwd|passphrase|secret(?:_access)?_key|api_?key|[a-z]_token|PGPASSWORD)"
        r"[\"']?\s*[=:]\s*[\"']?(?!null\b)[^\s\"'${}<,;|&]{4,}",
        re.I,
    ),
}
"""What a secret looks like. A value that is a shell variable (`$PASSWORD`) is none."""


_told: set[str] = set()


def host_keys_pinned(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Every connection to a host, and through a proxy, knows the host's key.

    A preview tells of each host once; an update refuses every Command on it.
    """
    if not REMOTE.fullmatch(args.resource_type):
        return
    connection = args.props["connection"]
    if not isinstance(connection, Mapping):
        # `pulumi policy analyze --file` shows `[secret]` instead of it.
        args.not_applicable("the connection is a secret that cannot be read here")
        return
    for place in (connection, connection.get("proxy")):
        if place is not None and not place.get("hostKey"):
            if pulumi.runtime.is_dry_run() and place["host"] in _told:
                continue
            _told.add(place["host"])
            report(
                f"The ssh host key of {place['host']} is not known: whoever answers there would "
                "get root's commands. Run `epibackup trust`, compare what it shows with the "
                "host, and commit the stack's configuration.",
                args.urn,
            )


def no_secret_in_command(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """No Command has a secret in what is stored or shown of it.

    A text that is unknown in a preview is looked at in the update. The message never has the
    secret.
    """
    if not COMMAND.fullmatch(args.resource_type):
        return
    secrets = _configured_secrets()
    for name, text in _texts(args.props):
        found = [title for title, pattern in PATTERNS.items() if pattern.search(text)]
        found += [f"the secret {key}" for key, secret in secrets.items() if secret in text]
        for title in found:
            report(
                f"`{name}` of the Command {args.name} has {title} in it, which the state and "
                "error messages would show. Keep it in a file that only the host's service can "
                "read, and give the Command the file's path.",
                args.urn,
            )


def _texts(props: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The known texts of a Command, with their inputs' names."""
    for name in TEXTS:
        try:
            value = props.get(name)
            items = value.items() if isinstance(value, Mapping) else [("", value)]
            texts = [text if isinstance(text, str) else str(text or "") for _, text in items]
            if isinstance(value, Mapping):
                texts += [f"{key}={text}" for key, text in items]
        except UnknownValueError:
            continue
        for text in texts:
            yield name, text


def _configured_secrets() -> dict[str, str]:
    """The secrets of the stack's configuration, in clear: those worth looking for."""
    config = pulumi.runtime.get_config_env()
    found = {}
    for key in pulumi.runtime.get_config_secret_keys_env():
        for number, text in enumerate(_leaves(config.get(key, ""))):
            if len(text) >= SHORTEST_SECRET:
                found[f"{key}[{number}]" if number else key] = text
    return found


def _leaves(value: Any) -> Iterator[str]:
    """The texts of a configuration value: of a map or list, those inside it."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield str(value)


POLICIES = [
    ResourceValidationPolicy(
        name="host-keys-pinned",
        description="Every host that is contacted shows a key that is known beforehand.",
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps="epibackup trust",
        validate=host_keys_pinned,
    ),
    ResourceValidationPolicy(
        name="no-secret-in-command",
        description="No secret is in the text of a Command.",
        enforcement_level=EnforcementLevel.MANDATORY,
        remediation_steps="Put the secret into a file, mode 0600, and give the file's path.",
        validate=no_secret_in_command,
    ),
]
