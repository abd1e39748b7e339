"""What the engine says, by its events: of a preview, of a refresh, of an update."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pulumi.automation.events import EngineEvent, StepEventMetadata

from program.progress import COLOUR_TAG

OnEvent = Callable[[EngineEvent], None]

UNCHANGED = ("same", "read", "refresh")

MANDATORY = "mandatory"

SUMMARY = "preview failed"
"""The engine's last error, which says nothing new."""

PROTECTED = re.compile(r"cannot be (deleted|replaced)|is protected", re.IGNORECASE)
"""How the engine refuses to remove a protected resource (pkg/resource/deploy/step_generator.go,
3.259)."""


@dataclass(frozen=True)
class Change:
    """A step of the engine that changes something.

    op: create, update, replace, delete and so on, in Pulumi's words.
    properties: the inputs that differ, as far as the engine says so.
    inputs: those of the resource as it will be; secrets are replaced by `[secret]`.
    """

    op: str
    type: str
    name: str
    urn: str
    properties: tuple[str, ...] = ()
    inputs: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Violation:
    """A policy that is not kept. level: `mandatory` refuses the change, `advisory` warns."""

    policy: str
    level: str
    message: str
    resource: str


@dataclass(frozen=True)
class Preview:
    """What a preview has shown. errors: why the engine itself refused to go on."""

    changes: tuple[Change, ...]
    violations: tuple[Violation, ...]
    errors: tuple[str, ...]


class Seen:
    """Collects a preview from its events."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], Change] = {}
        self._violations: dict[tuple[str, str], Violation] = {}
        self._errors: list[str] = []

    def see(self, event: EngineEvent) -> None:
        """Take an event."""
        if event.resource_pre_event:
            for change in _changes(event.resource_pre_event.metadata):
                self._changes[change.urn, change.op] = change
        told = event.diagnostic_event
        if told and told.severity == "error" and not told.ephemeral:
            self._errors.append(COLOUR_TAG.sub("", told.message).strip())
        broken = event.policy_event
        if broken:
            # Said once, however many resources say the same.
            message = COLOUR_TAG.sub("", broken.message).strip()
            self._violations.setdefault(
                (broken.policy_name, message),
                Violation(
                    policy=broken.policy_name,
                    level=broken.enforcement_level,
                    message=message,
                    resource=(broken.resource_urn or "").rpartition("::")[2],
                ),
            )

    @property
    def refused(self) -> bool:
        """Whether policies or protection are why the preview failed."""
        levels = [found.level for found in self._violations.values()]
        return MANDATORY in levels or bool(self._protected)

    @property
    def failures(self) -> list[str]:
        """The engine's errors, but those that `refused` means."""
        told = [SUMMARY, *self._protected]
        return [error for error in self._errors if error not in told]

    @property
    def _protected(self) -> list[str]:
        """The engine's refusals to remove what is protected."""
        return [error for error in self._errors if PROTECTED.search(error)]

    def preview(self) -> Preview:
        """All that was seen."""
        return Preview(
            tuple(self._changes.values()),
            tuple(self._violations.values()),
            tuple(self._protected),
        )


class Refreshed:
    """Collects what a refresh finds, from its events: what differs is told by a resource's end."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}

    def see(self, event: EngineEvent) -> None:
        """Take an event."""
        if event.res_outputs_event:
            for change in _changes(event.res_outputs_event.metadata):
                self._changes[change.urn] = change

    def changes(self) -> tuple[Change, ...]:
        """What is not as the state says: updated or deleted."""
        return tuple(self._changes.values())


class Told:
    """What an update's events tell: its outputs, and what went wrong."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._messages: list[str] = []
        self.host_was_lost = False
        self.outputs: dict[str, Any] = {}

    def see(self, event: EngineEvent) -> None:
        """Take an event, and pass it on."""
        diagnostic = event.diagnostic_event
        if diagnostic and diagnostic.severity == "error" and not diagnostic.ephemeral:
            self._messages.append(diagnostic.message.strip())
        failure = event.res_op_failed_event
        if failure and failure.metadata.type.startswith("command:remote:"):
            self.host_was_lost = True
        done = event.res_outputs_event
        if done and done.metadata.type == "pulumi:pulumi:Stack" and done.metadata.new:
            self.outputs = dict(done.metadata.new.outputs or {})
        self._on_event(event)

    def errors(self) -> str:
        """Pulumi's own error messages."""
        return "\n".join(self._messages)


def _changes(step: StepEventMetadata) -> Iterator[Change]:
    if step.op.value in UNCHANGED:
        return
    state = step.new or step.old
    properties = sorted({path.split(".")[0].split("[")[0] for path in step.detailed_diff or {}})
    yield Change(
        op=step.op.value,
        type=step.type,
        name=step.urn.rpartition("::")[2],
        urn=step.urn,
        properties=tuple(properties or step.diffs or ()),
        inputs=dict((state.inputs if state else None) or {}),
    )
