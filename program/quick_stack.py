"""The Automation API's stack without its detours, and configuration as its CLI takes it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pulumi import automation


class QuickStack(automation.Stack):
    """A stack without the calls of the CLI that take time and tell nothing new: selecting it,
    which would also change the user's own choice, and asking for outputs and history after an
    update whose events have told them."""

    def __init__(self, name: str, workspace: automation.Workspace) -> None:
        self.name = name
        self.workspace = workspace

    def outputs(self) -> automation.OutputMap:
        """What `up` asks for; see program.preview.Told."""
        return {}

    def info(self, show_secrets: bool | None = None) -> automation.UpdateSummary:  # noqa: ARG002
        """What `up` asks for."""
        return automation.UpdateSummary(
            kind="update",
            start_time=datetime.now(UTC),
            message="",
            environment={},
            config={},
            result="succeeded",
        )


def flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """A value as Pulumi's `config set --path` takes it: a path and a text for each leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(f'{path}["{key}"]', item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flat(f"{path}[{index}]", item)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)
