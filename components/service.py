"""What every service is: a component with one snapshot Command a host."""

import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import remote
from pydantic import BaseModel, ConfigDict, ValidationError

import components
from components.archive.manifest import ServiceRecord
from components.host_agent import agent_command, quoted
from components.restoring import ControllerRestore, RestoreContext

ANSWER_FORMAT = 1
"""The format of host.snapshot's answers that this version understands."""


class ServiceSettings(BaseModel):
    """A service's own section of the stack configuration; subclasses add fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SnapshotHost(TypedDict):
    """A host on which a service is saved."""

    name: str
    """The host's name in the inventory."""
    connection: remote.ConnectionArgs
    """How Pulumi reaches it."""
    agent: pulumi.Resource
    """The HostAgent that has to be there first."""


class ServiceBackupArgs(TypedDict):
    """What a service's backup needs."""

    run: str
    """The run's id."""
    agent_hash: str
    """SHA-256 of the agent, in hexadecimal."""
    host_directory: str
    """The agent's folder on the hosts."""
    timeout_seconds: int
    """How long a snapshot may take on a host."""
    settings: ServiceSettings
    """The service's section of the stack configuration."""
    compression: Mapping[str, Any]
    """Method and level, for the agent."""
    hosts: Sequence[SnapshotHost]
    """The hosts to save, without those that cannot be reached."""
    unreachable: NotRequired[Mapping[str, Mapping[str, str]]]
    """Hosts that cannot be reached, with message and hint; their service counts as failed."""
    earlier: NotRequired[Sequence[pulumi.Resource]]
    """The services that have to be saved before this one."""


class SnapshotAnswer(BaseModel):
    """What the agent says of a snapshot (host.snapshot.Snapshot.answer)."""

    model_config = ConfigDict(extra="ignore")

    format: int
    status: str
    error: dict[str, str] | None
    version: str | None
    warnings: list[str]
    details: dict[str, Any]
    members: list[dict[str, Any]]


class ServiceBackup(pulumi.ComponentResource):
    """The backup of one service on all its hosts.

    A service's folder has a `component.py` with a subclass; `name`, `groups` and `title` are
    all that most of them add.

    answers: what each host's snapshot said, by host name.
    problems: what is wrong with the service as a whole; empty if nothing.
    """

    service: ClassVar[str]
    """The service's name: its folder, its part of archives, its --service."""
    groups: ClassVar[tuple[str, ...]]
    """The inventory groups whose hosts have it."""
    title: ClassVar[str]
    """Its name for people."""
    settings_model: ClassVar[type[ServiceSettings]] = ServiceSettings
    after: ClassVar[tuple[str, ...]] = ()
    """Services that are saved before this one, where a run has them."""

    answers: Output[dict[str, dict[str, Any]]]
    problems: Output[list[str]]

    def __init__(
        self, name: str, args: ServiceBackupArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"epibackup:index:{type(self).__name__}", name, {}, opts)
        request = json.dumps(
            {
                "settings": args["settings"].model_dump(mode="json"),
                "compression": dict(args["compression"]),
            },
            sort_keys=True,
        )
        snapshot = [
            *agent_command(args["host_directory"], args["agent_hash"]),
            *("--timeout", str(args["timeout_seconds"])),
            *("snapshot", self.service, "--run", args["run"]),
        ]
        answers: dict[str, Input[dict[str, Any]]] = {
            host: failed_answer(failure["message"], failure["hint"])
            for host, failure in args.get("unreachable", {}).items()
        }
        one_at_a_time = self.one_at_a_time(args["settings"])
        before: list[pulumi.Resource] = [*args.get("earlier", [])]
        for host in args["hosts"]:
            made = remote.Command(
                f"{name}-{host['name']}",
                connection=host["connection"],
                create=quoted(snapshot),
                stdin=request,
                logging=remote.Logging.STDERR,
                add_previous_output_in_env=False,
                opts=ResourceOptions(parent=self, depends_on=[host["agent"], *before]),
            )
            if one_at_a_time:
                before = [made]
            answers[host["name"]] = made.stdout.apply(parse_answer)
        self.answers = Output.all(**answers)
        self.problems = self.answers.apply(type(self).conclude)
        self.register_outputs({"answers": self.answers, "problems": self.problems})

    @classmethod
    def one_at_a_time(cls, settings: ServiceSettings) -> bool:
        """Whether a host's snapshot waits for the one before it, because each of them stops
        something. For subclasses."""
        del settings
        return False

    @classmethod
    def restored_with(cls, parts: Sequence[str]) -> tuple[str, ...]:
        """Services whose hosts take the steps of a restore together, this one included; empty
        where each host is restored by itself. For subclasses.

        parts: those that were chosen; empty for all.
        """
        del parts
        return ()

    @classmethod
    def spread(cls, record: ServiceRecord) -> ServiceRecord:
        """The service as its hosts get it in a whole restore: a subclass may give hosts the
        members of another."""
        return record

    @classmethod
    def compare(cls, context: RestoreContext) -> list[str]:
        """Compare a restored service with the manifest, at the barrier `host.service.COMPARE`;
        returns warnings. Raises EpibackupError if it differs: then all hosts go back."""
        del context
        return []

    @classmethod
    def controller_restore(cls, context: RestoreContext) -> ControllerRestore:
        """A restore of the chosen parts into the running service, by the controller itself, where
        `is_restored_by_controller` says so."""
        raise NotImplementedError(f"the hosts restore {context.record.name}")

    @classmethod
    def is_restored_by_controller(cls, parts: Sequence[str]) -> bool:
        """Whether `controller_restore` is there for these parts."""
        del parts
        return False

    @classmethod
    def conclude(cls, answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What is wrong with a service though no host failed, in words. For subclasses."""
        del answers
        return []


def failed_answer(message: str, hint: str = "") -> dict[str, Any]:
    """The answer of a host that could not answer."""
    return {
        "format": ANSWER_FORMAT,
        "status": "failed",
        "error": {"message": message, "hint": hint},
        "version": None,
        "warnings": [],
        "details": {},
        "members": [],
    }


def parse_answer(text: str) -> dict[str, Any]:
    """The answer of a snapshot Command; what is none becomes a failed one."""
    try:
        answer = SnapshotAnswer.model_validate_json(text)
    except ValidationError:
        return failed_answer(f"the agent's answer cannot be read: {text[:200]!r}")
    if answer.format != ANSWER_FORMAT:
        return failed_answer(f"the agent's answer has the unknown format {answer.format}")
    return answer.model_dump()


def service_types() -> dict[str, type[ServiceBackup]]:
    """All services, by name: every folder of `components` whose component.py has one."""
    found: dict[str, type[ServiceBackup]] = {}
    for module in pkgutil.iter_modules(components.__path__, "components."):
        if module.ispkg and importlib.util.find_spec(f"{module.name}.component"):
            for candidate in vars(importlib.import_module(f"{module.name}.component")).values():
                if (
                    isinstance(candidate, type)
                    and issubclass(candidate, ServiceBackup)
                    and candidate is not ServiceBackup
                ):
                    found[candidate.service] = candidate
    return dict(sorted(found.items()))
