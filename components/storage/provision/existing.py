"""Storage that is there already, as a Pulumi component."""

from typing import TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions


class ExistingStorageArgs(TypedDict):
    """Storage that somebody else makes and looks after."""

    location: Input[str]
    """The target: a path, s3://…, azurefiles://… or nfs://…"""


class ExistingStorage(pulumi.ComponentResource):
    """Storage of which nothing is made. It stands in a program where made storage would stand."""

    location: Output[str]
    """The target."""

    def __init__(
        self, name: str, args: ExistingStorageArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("epibackup:index:ExistingStorage", name, {}, opts)
        self.location = Output.from_input(args["location"])
        self.register_outputs({"location": self.location})
