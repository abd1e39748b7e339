"""A stack as the command uses it: updates, outputs and configuration, by the Automation API."""

import contextlib
import json
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

from pulumi import automation

from components.errors import EpibackupError, Interrupted, Locked, NotFound, PolicyRefused
from components.outcome import read_error
from engine import Engine, EngineError, obtain
from program import project
from program.locks import lock_of
from program.plan import Plan
from program.preview import Change, OnEvent, Preview, Refreshed, Seen, Told
from program.pulumi_process import PulumiProcess
from program.quick_stack import QuickStack, flat
from program.run import Ready, declare, made_ready, tell

MISSING_PLUGIN = re.compile(
    r"no resource plugin 'pulumi-resource-(?P<name>[a-z-]+)' found .* version v(?P<version>[\d.]+)"
)
"""How the engine says that a provider is not there and cannot be downloaded (CLI 3.259)."""

OFF_PLAN = "violates plan"
"""How the engine refuses what a saved plan has not (pkg/resource/deploy/step_generator.go)."""

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
        known = {
            path: automation.ConfigValue(value)
            for key, item in values.items()
            for path, value in flat(f"epibackup:{key}", item)
        }
        with self._explaining():
            self._make()
            self._stack(_nothing).set_all_config(known, path=True)

    def preview(
        self,
        plan: Plan,
        run: str,
        *,
        policy_pack: str | None = None,
        policy_config: str | None = None,
        save_to: str | None = None,
    ) -> Preview:
        """Preview a run; contacts no host. Makes the stack if there is none.

        policy_pack: the pack's folder; policy_config: a JSON file with its configuration.
        save_to: where to save the plan that an update can be held to.
        Raises EpibackupError, in Pulumi's own words, unless a policy or protection stopped it:
        that is told by what is returned.
        """
        seen = Seen()
        ready = Ready(self.name, run, None, is_planned=save_to is not None)

        def preview() -> None:
            self._stack(partial(_tell_and_declare, plan, ready)).preview(
                on_event=seen.see,
                policy_packs=[policy_pack] if policy_pack else None,
                policy_pack_configs=[policy_config] if policy_config else None,
                plan=save_to,
                color="never",
                suppress_outputs=True,
                suppress_progress=True,
            )

        try:
            try:
                preview()
            except automation.StackNotFoundError:
                self._make()
                preview()
        except automation.CommandError as error:
            if not seen.refused or seen.failures:
                raise self._cli_error("\n".join(seen.failures) or _words(error), "") from error
        return seen.preview()

    def update(
        self,
        plan: Plan,
        run: str,
        on_event: OnEvent,
        remember: Mapping[str, Any],
        held_to: str | None = None,
    ) -> dict[str, Any]:
        """Make a run; returns the stack's outputs, also those of an incomplete run.

        remember: options to write into the stack's configuration, once the hosts were looked at.
        held_to: the file of a saved plan; whatever differs from it ends the update.

        Raises what the archive process or a check said, Locked if another run is at work,
        Interrupted if the user stopped it. When a host is lost in the middle, the run goes on
        once without it, repeating only what had failed.
        """
        self._refuse_if_locked()
        if plan.settings.storage.is_in_cloud:
            # What a cloud has made is not made again: the state must know it after a crash, too.
            environment = {**(self._options.env_vars or {}), "PULUMI_SKIP_CHECKPOINTS": "false"}
            self._options.env_vars = environment
        with self._interruptible():
            # A plan names its hosts: it cannot be carried out without one of them.
            last_try = held_to is not None
            outputs = self._try(plan, run, on_event, remember, last_try, held_to)
            if outputs is None:
                outputs = self._try(plan, run, on_event, {}, last_try=True)
        return outputs or {}

    def _try(
        self,
        plan: Plan,
        run: str,
        on_event: OnEvent,
        remember: Mapping[str, Any],
        last_try: bool,
        held_to: str | None = None,
    ) -> dict[str, Any] | None:
        """One update; None if a host was lost and there is another try."""
        with made_ready(plan, self.name, run) as ready:
            if remember:
                self.set_config(remember)
            told = Told(on_event)
            try:
                self._up(plan, ready, told, held_to)
            except automation.ConcurrentUpdateError as error:
                raise self._locked() from error
            except automation.CommandError as error:
                if told.outputs.get("run") == run:
                    return told.outputs  # the gate failed, and the archive is there
                if told.host_was_lost and not last_try:
                    return None
                raise self._explained(ready, told, error) from error
            return told.outputs

    def _up(self, plan: Plan, ready: Ready, told: Told, held_to: str | None) -> None:
        def up() -> None:
            self._stack(partial(_tell_and_declare, plan, ready)).up(
                on_event=told.see,
                message=f"run {ready.run}",
                plan=held_to,
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
            raise self._unknown() from error
        return {name: output.value for name, output in outputs.items()}

    def drift(self) -> tuple[Change, ...]:
        """What of the stack's resources is not as its state says, as their providers tell;
        changes nothing, the state included.

        Raises NotFound if nobody has made the stack.
        """
        seen = Refreshed()
        try:
            with self._explaining():
                self._stack(_nothing).preview_refresh(
                    on_event=seen.see,
                    color="never",
                    suppress_outputs=True,
                    suppress_progress=True,
                    run_program=False,
                )
        except automation.StackNotFoundError as error:
            raise self._unknown() from error
        return seen.changes()

    def _unknown(self) -> NotFound:
        return NotFound(
            f"there is no stack {self.name}", "epibackup -b … -t … makes it with its first run"
        )

    def set_catalog(self, catalog: Sequence[Mapping[str, Any]]) -> None:
        """Write the catalog among the stack's outputs, without an update; makes the stack if
        there is none.

        An update that declared no run would forget the last one's resources, so the stack's state
        is exported, changed in this one place, and imported. Raises Locked if a run is at work.
        """
        self._refuse_if_locked()
        with self._explaining():
            self._make()
            # Not by the Automation API, which writes the state's secrets in clear to a file.
            state = json.loads(self._cli("stack", "export"))
            resource = _stack_resource(state["deployment"], self.name)
            resource.setdefault("outputs", {})["catalog"] = list(catalog)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "state.json"
                file.write_text(json.dumps(state))
                self._cli("stack", "import", "--file", str(file))

    def _cli(self, *arguments: str) -> str:
        """Run the CLI about this stack; returns what it printed. Raises CommandError."""
        done = self._process.run(
            [*arguments, "--stack", self.name],
            cwd=str(project.ROOT),
            additional_env=self._options.env_vars or {},
        )
        return done.stdout

    def unlock(self) -> None:
        """Remove the stack's locks, whoever holds them."""
        with self._explaining():
            self._stack(_nothing).cancel()

    def _make(self) -> None:
        with contextlib.suppress(automation.StackAlreadyExistsError):
            automation.Stack.create(self.name, self._stack(_nothing).workspace)

    def _stack(self, program: Callable[[], None]) -> QuickStack:
        workspace = automation.LocalWorkspace(**vars(self._options))
        workspace.program = program
        return QuickStack(self.name, workspace)

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
        self, ready: Ready, told: Told, error: automation.CommandError
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
        said = told.errors() or _words(error)
        if OFF_PLAN in said:
            return PolicyRefused(
                f"the run is not what its saved plan says, and published nothing: {said}",
                "look at what has changed (epibackup plan --diff), and save a new plan",
            )
        return self._cli_error(said, f"try again with {again}")

    def _cli_error(self, said: str, hint: str) -> EpibackupError:
        if "incorrect passphrase" in said:
            return EpibackupError(
                f"the stack {self.name} was made with another passphrase than this user's",
                "set PULUMI_CONFIG_PASSPHRASE, or bring back the file "
                f"{project.passphrase_file()}; archives do not depend on it, so another stack "
                "(-s NAME) will do as well",
            )
        if plugin := MISSING_PLUGIN.search(said):
            name, version = plugin["name"], plugin["version"]
            return EpibackupError(
                f"storage needs Pulumi's plugin {name} {version}, and it is not installed",
                f"where Pulumi's downloads can be reached: pulumi plugin install resource {name} "
                f"{version}; elsewhere add --file with its archive (docs/provisioning.md)",
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


def _words(error: automation.CommandError) -> str:
    """The CLI's own words: the last part of the SDK's text."""
    return str(error).rpartition("stderr:")[2].strip()


def _tell_and_declare(plan: Plan, ready: Ready) -> None:
    """The program of a run."""
    tell(plan)
    declare(plan, ready)


def _stack_resource(state: dict[str, Any], stack: str) -> dict[str, Any]:
    """The resource of a state that has the outputs; made where the stack never had an update."""
    resources = state.setdefault("resources", [])
    for resource in resources:
        if resource["type"] == "pulumi:pulumi:Stack":
            return cast(dict[str, Any], resource)
    made = {
        "urn": f"urn:pulumi:{stack}::{project.NAME}::pulumi:pulumi:Stack::{project.NAME}-{stack}",
        "custom": False,
        "type": "pulumi:pulumi:Stack",
    }
    resources.append(made)
    return made


def _nothing() -> None:
    """A program for what needs none: configuring, reading outputs."""
