"""What a run saves of the inventory and what it does not, told to previews and policies."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi
from pulumi import ResourceOptions


class ExemptionInput(TypedDict):
    """Why something need not be saved, for now."""

    owner: str
    """Who answers for it."""
    reason: str
    """Why."""
    until: str
    """The last day on which it holds, UTC, as 2027-03-31."""


class Uncovered(TypedDict):
    """Something the inventory has and the run does not save."""

    what: str
    """A group of the inventory."""
    hosts: Sequence[str]
    """Where it is."""
    reason: str
    """Why it is not saved."""
    exempt: NotRequired[ExemptionInput]
    """The exemption, if the stack's configuration has one."""


class CoverageArgs(TypedDict):
    """What a run saves, and what not."""

    cluster: str
    """The cluster's name."""
    target: str
    """Where archives go."""
    services: Mapping[str, Sequence[str]]
    """The services that are saved, with their hosts."""
    missing: Sequence[Uncovered]
    """What the inventory has besides."""


class Coverage(pulumi.ComponentResource):
    """Does nothing, and has everything in its inputs: a preview shows what changed in them since
    the last update, such as a new host, and policies read them."""

    def __init__(self, name: str, args: CoverageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("epibackup:index:Coverage", name, {**args}, opts)
        self.register_outputs({})
