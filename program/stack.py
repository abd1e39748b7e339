"""A stack as the command uses it: updates, outputs and configuration, by the Automation API."""

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from pulumi import automation
from pulumi.automation.events import EngineEvent

from components.errors import EpibackupError, Interrupted, Locked, NotFound
from components.outcome import read_error
from engine import Engine, EngineError, obtain
from program import project
from program.locks import lock_of
from program.plan import Plan
from program.pulumi_process import PulumiProcess
from program.run import Ready, declare, made_ready, tell

OnEvent = Callable[[EngineEvent], None]
Say = Callable[[str], None]


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

    def set_config(self, values: Mapping[str, Any]) -> None:
        """Write options into the stack's configuration, which makes the stack if need be."""
        flat = {
            path: automation.ConfigValue(value)
            for key, item in values.items()
            for path, value in _flat(f"epibackup:{key}", item)
        }
        with self._explaining():
            self._make()
            self._stack(_nothing).set_all_config(flat, path=True)

    def update(
        self, plan: Plan, run: str, on_event: OnEvent, remember: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make a run; returns the stack's outputs, also those of an incomplete run.

        remember: options to write into the stack's configuration, once the hosts were looked at.

        Raises what the archive process or a check said, Locked if another run is at work,
        Interrupted if the user stopped it. When a host is lost in the middle, the run goes on
        once without it, repeating only what had failed.
        """
        self._refuse_if_locked()
        with self._interruptible():
            outputs = self._try(plan, run, on_event, remember, last_try=False)
            if outputs is None:
                outputs = self._try(plan, run, on_event, {}, last_try=True)
        return outputs or {}

    def _try(
        self, plan: Plan, run: str, on_event: OnEvent, remember: Mapping[str, Any], last_try: bool
    ) -> dict[str, Any] | None:
        """One update; None if a host was lost and there is another try."""
        with made_ready(plan, self.name, run) as ready:
            if remember:
                self.set_config(remember)
            told = _Told(on_event)
            try:
                self._up(plan, ready, told)
            except automation.ConcurrentUpdateError as error:
                raise self._locked() from error
            except automation.CommandError as error:
                if told.outputs.get("run") == run:
                    return told.outputs  # the gate failed, and the archive is there
                if told.host_was_lost and not last_try:
                    return None
                raise self._explained(ready, told, error) from error
            return told.outputs

    def _up(self, plan: Plan, ready: Ready, told: "_Told") -> None:
        def program() -> None:
            tell(plan)
            declare(plan, ready)

        def up() -> None:
            self._stack(program).up(
                on_event=told.see,
                message=f"run {ready.run}",
                color="never",
                suppress_outputs=True,
                suppress_progress=True,
            )

        try:
            up()
        except automation.StackNotFoundError:
            self._make()
            up()

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; raises NotFound if nobody has made the stack."""
        try:
            with self._explaining():
                outputs = automation.Stack.outputs(self._stack(_nothing))
        except automation.StackNotFoundError as error:
            raise NotFound(
                f"there is no stack {self.name}", "epibackup -b … -t … makes it with its first run"
            ) from error
        return {name: output.value for name, output in outputs.items()}

    def unlock(self) -> None:
        """Remove the stack's locks, whoever holds them."""
        with self._explaining():
            self._stack(_nothing).cancel()

    def _make(self) -> None:
        with contextlib.suppress(automation.StackAlreadyExistsError):
            automation.Stack.create(self.name, self._stack(_nothing).workspace)

    def _stack(self, program: Callable[[], None]) -> "_QuickStack":
        workspace = automation.LocalWorkspace(**vars(self._options))
        workspace.program = program
        return _QuickStack(self.name, workspace)

    def _refuse_if_locked(self) -> None:
        if lock_of(self.name):
            raise self._locked()

    def _locked(self) -> Locked:
        held = lock_of(self.name)
        told = held.describe() if held else "somebody else holds its lock"
        hint = "wait until that run has ended"
        if held and held.alive is False:
            hint = f"that run was killed: epibackup unlock -s {self.name} removes its lock"
        return Locked(f"a run of the stack {self.name} holds its lock: {told}", hint)

    def _explained(
        self, ready: Ready, told: "_Told", error: automation.CommandError
    ) -> EpibackupError:
        """The best explanation there is for an update that failed."""
        again = f"--run {ready.run}"
        if self._process.was_interrupted:
            return Interrupted(
                "the run was stopped; nothing was published", f"go on with it: {again}"
            )
        left = read_error(ready.error_file)
        if left:
            return left
        return self._cli_error(told.errors() or _words(error), f"try again with {again}")

    def _cli_error(self, said: str, hint: str) -> EpibackupError:
        if "incorrect passphrase" in said:
            return EpibackupError(
                f"the stack {self.name} was made with another passphrase than this user's",
                "set PULUMI_CONFIG_PASSPHRASE, or bring back the file "
                f"{project.passphrase_file()}; archives do not depend on it, so another stack "
                "(-s NAME) will do as well",
            )
        return EpibackupError(said, hint)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn the CLI's refusals into our errors; that there is no stack is left to the caller."""
        try:
            yield
        except automation.StackNotFoundError:
            raise
        except automation.ConcurrentUpdateError as error:
            raise self._locked() from error
        except automation.CommandError as error:
            raise self._cli_error(_words(error), "") from error

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


class _QuickStack(automation.Stack):
    """A stack without the calls of the CLI that take time and tell nothing new: selecting it,
    which would also change the user's own choice, and asking for outputs and history after an
    update whose events have told them."""

    def __init__(self, name: str, workspace: automation.Workspace) -> None:
        self.name = name
        self.workspace = workspace

    def outputs(self) -> automation.OutputMap:
        """What `up` asks for; see _Told.outputs."""
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


class _Told:
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


def _words(error: automation.CommandError) -> str:
    """The CLI's own words: the last part of the SDK's text."""
    return str(error).rpartition("stderr:")[2].strip()


def _nothing() -> None:
    """A program for what needs none: configuring, reading outputs."""


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
