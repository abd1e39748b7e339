"""A stack as the command uses it: updates, previews, outputs and the lock (Automation API)."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from pulumi import automation
from pulumi.automation.events import EngineEvent

from components.errors import EpibackupError, Interrupted, Locked, NotFound
from components.outcome import read_error
from engine.errors import EngineError
from engine.selection import Engine, obtain
from program import project
from program.plan import Plan
from program.pulumi_process import PulumiProcess
from program.run import Ready, declare, made_ready, tell

OnEvent = Callable[[EngineEvent], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Lock:
    """Who holds a stack. alive: None where this machine cannot tell."""

    path: Path
    user: str
    host: str
    process: int
    since: datetime
    alive: bool | None

    def describe(self) -> str:
        """The lock, for people."""
        state = {True: "it is running", False: "it has ended", None: "whether it runs is unknown"}
        since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"process {self.process} of {self.user}@{self.host} since {since}; {state[self.alive]}"
        )


def engine(say: Say) -> Engine:
    """The Pulumi engine; built first where there is none. Raises EpibackupError."""
    try:
        return obtain(say)
    except EngineError as error:
        raise EpibackupError(error.message, error.hint) from error


class BackupStack:
    """One stack of the project.

    Its program runs in this process, so that an error in it stays an error, and declares just
    what `pulumi up` declares.
    """

    def __init__(self, name: str, chosen: Engine) -> None:
        self.name = name
        self._process = PulumiProcess(chosen)
        environment = {**chosen.environment(), **project.passphrase_environment()}
        environment |= {
            "PULUMI_BACKEND_URL": project.backend_url(),
            # Commands can be run again, so a crash may lose an update's state: it costs time
            # that grows with the square of their number (docs/performance.md).
            "PULUMI_SKIP_CHECKPOINTS": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }
        self._options = automation.LocalWorkspaceOptions(
            work_dir=str(project.ROOT), env_vars=environment, pulumi_command=self._process
        )

    def exists(self) -> bool:
        """Whether somebody has made the stack."""
        workspace = automation.LocalWorkspace(**vars(self._options))
        return any(stack.name.split("/")[-1] == self.name for stack in workspace.list_stacks())

    def set_config(self, values: Mapping[str, Any]) -> None:
        """Write options into the stack's configuration, which makes the stack if need be."""
        stack = self._select(_nothing)
        flat = {
            f"{path}": automation.ConfigValue(value)
            for key, item in values.items()
            for path, value in _flat(f"epibackup:{key}", item)
        }
        stack.set_all_config(flat, path=True)

    def update(
        self, plan: Plan, run: str, on_event: OnEvent, remember: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make a run; returns the stack's outputs.

        remember: options to write into the stack's configuration, once the hosts were looked at.

        Raises Incomplete's cousins: whatever the archive process or a check said, Locked if
        another run is at work, Interrupted if the user stopped it. When a host was lost in the
        middle, the run goes on once without it, repeating only what had failed.
        """
        self._refuse_if_locked()
        with self._interruptible():
            for last_try in (False, True):
                with made_ready(plan, self.name, run) as ready:
                    if remember and not last_try:
                        self.set_config(remember)
                    failed = _Failures(on_event)
                    stack = self._select(_program(plan, ready))
                    try:
                        result = stack.up(
                            on_event=failed.see,
                            message=f"run {run}",
                            color="never",
                            suppress_outputs=True,
                            suppress_progress=True,
                        )
                    except automation.ConcurrentUpdateError as error:
                        raise self._locked() from error
                    except automation.CommandError as error:
                        outputs = self._outputs(stack)
                        if outputs.get("run") == run:
                            return outputs
                        if failed.host_was_lost and not last_try:
                            continue
                        raise self._explained(ready, failed, error) from error
                    return {name: output.value for name, output in result.outputs.items()}
        raise EpibackupError("the run was given up")  # not reached: the second try returns

    def preview(self, plan: Plan, run: str, on_event: OnEvent) -> None:
        """Show what an update would do; contacts no host."""
        stack = self._select(_program(plan, Ready(self.name, run, None)))
        failed = _Failures(on_event)
        try:
            stack.preview(on_event=failed.see, color="never", suppress_progress=True)
        except automation.CommandError as error:
            raise EpibackupError(failed.text() or str(error)) from error

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; raises NotFound if nobody has made the stack."""
        try:
            return self._outputs(automation.Stack.select(self.name, self._workspace(_nothing)))
        except automation.StackNotFoundError as error:
            raise NotFound(
                f"there is no stack {self.name}", "epibackup -b … -t … makes it with its first run"
            ) from error

    def lock(self) -> Lock | None:
        """Who holds the stack; None if nobody, or if the backend is not a folder."""
        folder = project.backend_folder()
        if folder is None:
            return None
        locks = folder / ".pulumi" / "locks" / "organization" / project.NAME / self.name
        for path in sorted(locks.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                return _read_lock(path)
        return None

    def unlock(self) -> None:
        """Remove the stack's locks, whoever holds them."""
        self._select(_nothing).cancel()

    def _select(self, program: Callable[[], None]) -> automation.Stack:
        workspace = self._workspace(program)
        if project.stack_file(self.name).exists():
            with contextlib.suppress(automation.StackNotFoundError):
                return automation.Stack.select(self.name, workspace)
        with contextlib.suppress(automation.StackAlreadyExistsError):
            return automation.Stack.create(self.name, workspace)
        return automation.Stack.select(self.name, workspace)

    def _workspace(self, program: Callable[[], None]) -> automation.LocalWorkspace:
        workspace = automation.LocalWorkspace(**vars(self._options))
        workspace.program = program
        return workspace

    def _outputs(self, stack: automation.Stack) -> dict[str, Any]:
        return {name: output.value for name, output in stack.outputs().items()}

    def _refuse_if_locked(self) -> None:
        if self.lock():
            raise self._locked()

    def _locked(self) -> Locked:
        held = self.lock()
        told = held.describe() if held else "somebody else holds its lock"
        hint = "wait until that run has ended"
        if held and held.alive is False:
            hint = f"that run was killed: epibackup unlock -s {self.name} removes its lock"
        return Locked(f"a run of the stack {self.name} holds its lock: {told}", hint)

    def _explained(
        self, ready: Ready, failed: "_Failures", error: automation.CommandError
    ) -> EpibackupError:
        """The best explanation there is for an update that failed."""
        left = read_error(ready.error_file)
        if left:
            return left
        if "update canceled" in str(error):
            return Interrupted("the run was stopped", f"go on with it: --run {ready.run}")
        return EpibackupError(
            failed.text() or str(error).strip(), f"try again with --run {ready.run}"
        )

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Pass SIGINT and SIGTERM on to the CLI, which ends an update in good order."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_: int, __: FrameType | None) -> None:
            self._process.interrupt()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Failures:
    """Watches an update's events for what went wrong."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._messages: list[str] = []
        self.host_was_lost = False

    def see(self, event: EngineEvent) -> None:
        """Take an event, and pass it on."""
        diagnostic = event.diagnostic_event
        if diagnostic and diagnostic.severity == "error" and not diagnostic.ephemeral:
            self._messages.append(diagnostic.message.strip())
        failure = event.res_op_failed_event
        if failure and failure.metadata.type.startswith("command:remote:"):
            self.host_was_lost = True
        self._on_event(event)

    def text(self) -> str:
        """Pulumi's own error messages."""
        return "\n".join(self._messages)


def _program(plan: Plan, ready: Ready) -> Callable[[], None]:
    def program() -> None:
        tell(plan)
        declare(plan, ready)

    return program


def _nothing() -> None:
    """A program for what needs none: selecting, configuring."""


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """A value as Pulumi's `config set --path` takes it: a path and a text for each leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f'{path}["{key}"]', item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _flat(f"{path}[{index}]", item)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _read_lock(path: Path) -> Lock:
    document = json.loads(path.read_text())
    alive = None
    if document["hostname"] == socket.gethostname():
        alive = _is_pulumi(int(document["pid"]))
    return Lock(
        path=path,
        user=document["username"],
        host=document["hostname"],
        process=int(document["pid"]),
        since=datetime.fromisoformat(document["timestamp"]),
        alive=alive,
    )


def _is_pulumi(process: int) -> bool:
    """Whether a process is a Pulumi CLI: numbers are used again."""
    try:
        os.kill(process, 0)
        return "pulumi" in Path(f"/proc/{process}/cmdline").read_text()
    except PermissionError:
        return True
    except (ProcessLookupError, FileNotFoundError):
        return False
