"""Showing an update while it runs: a line a step on a terminal, plain lines elsewhere."""

import contextlib
import json
import re
import time
from types import TracebackType
from typing import Self

from pulumi.automation.events import DiagnosticEvent, EngineEvent, StepEventStateMetadata
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

PERCENT = re.compile(r"^(\d+)% ")
COLOUR_TAG = re.compile(r"<\{%.*?%\}>")
CHOSEN_PLUGIN = re.compile(r"using pulumi-[\w-]+ from \$PATH")
"""The CLI says so of every plugin that it has not installed itself; `epibackup engine` tells why
it was chosen."""

PLAIN_SECONDS = 10
"""How often a step tells about itself where there is no terminal."""

COMMANDS = ("command:remote:Command", "command:local:Command")


def step_title(urn: str) -> str:
    """What people call a resource of a run: `postgresql-db1` is the snapshot on db1.

    Empty for what is no news to them: steps on the way to an agent, and the gate, whose word is
    the end of the run.
    """
    kind, name = urn.split("::")[2], urn.split("::")[3]
    if "HostAgent" in kind:
        agent = name.removeprefix("agent-").removesuffix("-install")
        return f"agent on {agent}" if name.endswith("-install") else ""
    if "Archive" in kind:
        return "archive"
    if "Retention" in kind:
        return "retention"
    if "Gate" in kind:
        return ""
    service, _, host = name.partition("-")
    return f"{service} on {host}"


def step_ending(state: StepEventStateMetadata | None) -> str:
    """How a step has ended. A snapshot that failed is an answer, not an error."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        answer = json.loads((state.outputs or {})["stdout"]) if state else {}
        if answer.get("status") == "failed":
            return "failed"
    return "done"


class RunProgress:
    """Takes an update's events; used as a context manager around it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._bars.stop()

    def see(self, event: EngineEvent) -> None:
        """Take an event of the update."""
        begun, done = event.resource_pre_event, event.res_outputs_event
        said, failed = event.diagnostic_event, event.res_op_failed_event
        if begun and begun.metadata.type in COMMANDS and begun.metadata.op in ("create", "update"):
            self._begin(begun.metadata.urn)
        elif done and done.metadata.urn in self._tasks:
            self._end(done.metadata.urn, step_ending(done.metadata.new))
        elif failed and failed.metadata.urn in self._tasks:
            self._end(failed.metadata.urn, "failed")
        elif said:
            self._tell(said)

    def _tell(self, said: DiagnosticEvent) -> None:
        text = COLOUR_TAG.sub("", said.message).strip()
        if said.ephemeral and said.urn in self._tasks and text:
            # A provider may send several lines at once: the last is how things stand.
            self._say(said.urn, text.splitlines()[-1])
        elif (
            not said.ephemeral
            and said.severity in ("warning", "info")
            and not CHOSEN_PLUGIN.search(text)
        ):
            self._console.print(text, style="dim", markup=False)

    def _begin(self, urn: str) -> None:
        if urn not in self._tasks and step_title(urn):
            self._tasks[urn] = self._bars.add_task(step_title(urn), total=100, said="")
            self._told[urn] = time.monotonic()

    def _say(self, urn: str, text: str) -> None:
        match = PERCENT.match(text)
        if match:
            self._bars.update(self._tasks[urn], completed=int(match[1]), said=text[match.end() :])
        else:
            self._bars.update(self._tasks[urn], said=text)
        now = time.monotonic()
        if not self._live and now - self._told[urn] >= PLAIN_SECONDS:
            self._told[urn] = now
            self._console.print(f"{step_title(urn)}: {text}", markup=False)

    def _end(self, urn: str, how: str) -> None:
        self._bars.update(self._tasks[urn], completed=100, said=how)
        self._bars.stop_task(self._tasks[urn])
        if not self._live:
            self._console.print(f"{step_title(urn)}: {how}", markup=False)
