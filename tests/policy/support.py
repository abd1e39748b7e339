"""Calling a policy with what the engine would hand it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pulumi_policy import (
    Policy,
    PolicyCustomTimeouts,
    PolicyResource,
    PolicyResourceOptions,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE as UNKNOWN
from pulumi_policy.proxy import unknown_checking_proxy

__all__ = ["UNKNOWN", "policy_named", "told", "told_of_stack"]


def policy_named(policies: Sequence[Policy], name: str) -> Policy:
    """A policy of a module."""
    return next(policy for policy in policies if policy.name == name)


def told(
    policy: Policy,
    kind: str,
    props: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> list[str]:
    """What a policy says of a resource with these inputs."""
    assert isinstance(policy, ResourceValidationPolicy)
    said: list[str] = []
    args = ResourceValidationArgs(
        kind, unknown_checking_proxy(dict(props)), "urn::it", "it", _options(), None, config
    )
    policy.validate(args, _collecting(said))
    return said


def told_of_stack(
    policy: Policy,
    resources: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any] | None = None,
) -> list[str]:
    """What a policy says of a stack with these resources: outputs by type."""
    assert isinstance(policy, StackValidationPolicy)
    said: list[str] = []
    found = [
        PolicyResource(
            kind, unknown_checking_proxy(dict(props)), f"urn::{kind}", "it", _options(), None,
            None, [], {},
        )
        for kind, props in resources.items()
    ]  # fmt: skip
    policy.validate(StackValidationArgs(found, config), _collecting(said))
    return said


def _collecting(said: list[str]) -> Callable[[str, str | None], None]:
    def report(message: str, urn: str | None = None) -> None:
        said.append(message)

    return report


def _options() -> PolicyResourceOptions:
    return PolicyResourceOptions(
        protect=False,
        ignore_changes=[],
        delete_before_replace=None,
        aliases=[],
        custom_timeouts=PolicyCustomTimeouts(0, 0, 0),
        additional_secret_outputs=[],
    )
