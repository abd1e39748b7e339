"""Which command runs when, as resources of the `command` provider are made, changed and deleted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support.inline_program import Output
from tests.engine.support.projects import Project, Run
from tests.engine.support.resources import CommandProject, Resource, local

KINDS = ("local", "remote")
_COMMANDS = ("create", "update", "delete")


@dataclass(frozen=True)
class Step:
    """One update of the story below, and what the commands said in it."""

    run: Run
    said: dict[str, list[str]]
    outputs: dict[str, dict[str, Any]]

    def operation(self, name: str) -> str:
        """Return what was done with the resource of a name, local and remote."""
        first, second = (self.run.operations().get(f"{kind}-{name}", "") for kind in KINDS)
        assert first == second
        return first

    def lines(self, name: str) -> list[str]:
        """Return what the commands of a resource said, local and remote."""
        first, second = (self.said.get(f"{kind}-{name}", []) for kind in KINDS)
        assert first == second
        return first

    def output(self, name: str, of: str = "stdout") -> str | None:
        """Return an output of the resource of a name, local and remote."""
        first, second = (self.outputs.get(f"{kind}-{name}", {}).get(of) for kind in KINDS)
        assert first == second
        return first


class Story:
    """Five updates of one stack, with a local and a remote command of each name."""

    def __init__(self, project: CommandProject, remote: Callable[..., Resource]) -> None:
        self._project = project
        self._remote = remote
        self._log = project.folder.parent / "log"
        self._log.mkdir()
        self._ready = project.folder.parent / "ready"
        self.made = self._up(text="1", failing="first", is_ready=False)
        self.again = self._up(text="1", failing="first", is_ready=True)
        self.changed = self._up(text="2", failing="second", is_ready=False)
        self.recovered = self._up(text="2", failing="second", is_ready=True)
        refreshed = project.run("refresh", "--yes", "--skip-preview", "--expect-no-changes")
        self.refreshed = self._step(refreshed)
        self.destroyed = self._step(project.destroy())

    def _up(self, *, text: str, failing: str, is_ready: bool) -> Step:
        if is_ready:
            self._ready.touch()
        else:
            self._ready.unlink(missing_ok=True)
        steps = {step: f"say {step}; echo {step}" for step in _COMMANDS}
        numbered = {step: f"say {step} {text}" for step in _COMMANDS}
        resources = [
            *self._both("all", **steps, stdin=text),
            *self._both("only-create", create=f"say {text}"),
            *self._both("triggered", **numbered, triggers=[f"generation {text}"]),
            *self._both("none", stdin=text),
            *self._both("failing", create=f"test -e {self._ready} && echo {failing}"),
        ]
        return self._step(self._project.up_with(*resources, flags=("--continue-on-error",)))

    def _both(self, name: str, **inputs: Any) -> Iterator[Resource]:
        for kind in KINDS:
            say = f'say() {{ echo "$@" >> {self._log}/{kind}-{name}; }}; '
            commands = {key: say + inputs[key] for key in _COMMANDS if key in inputs}
            describe = local if kind == "local" else self._remote
            yield describe(f"{kind}-{name}", **{**inputs, **commands})

    def _step(self, run: Run) -> Step:
        said = {path.name: path.read_text().splitlines() for path in self._log.iterdir()}
        for path in self._log.iterdir():
            path.unlink()
        resources = self._project.resources()
        outputs = {r["urn"].rsplit("::", 1)[-1]: r.get("outputs", {}) for r in resources}
        return Step(run, said, outputs)


@pytest.fixture(scope="module")
def story(shared: CommandProject, remote: Callable[..., Resource]) -> Story:
    return Story(shared, remote)


def test_create_update_and_delete_each_run_their_own_command(story: Story) -> None:
    assert story.made.operation("all") == "create"
    assert story.made.lines("all") == ["create"]
    assert story.made.output("all") == "create"
    assert story.changed.operation("all") == "update"
    assert story.changed.lines("all") == ["update"]
    assert story.changed.output("all") == "update"
    assert story.destroyed.lines("all") == ["delete"]
    assert story.destroyed.outputs == {}


def test_nothing_runs_when_no_input_changed(story: Story) -> None:
    for name in ("all", "only-create", "triggered", "none"):
        assert story.again.operation(name) == "same"
        assert story.again.lines(name) == []


def test_without_an_update_command_the_create_command_runs_again(story: Story) -> None:
    assert story.made.lines("only-create") == ["1"]
    assert story.changed.operation("only-create") == "update"
    assert story.changed.lines("only-create") == ["2"]
    for kind in KINDS:
        assert story.changed.run.differences(f"{kind}-only-create") == ["create"]
    assert story.destroyed.lines("only-create") == []


def test_new_triggers_replace_and_delete_runs_afterwards_with_the_old_inputs(story: Story) -> None:
    assert story.made.lines("triggered") == ["create 1"]
    assert story.changed.lines("triggered") == ["create 2", "delete 1"]
    assert story.destroyed.lines("triggered") == ["delete 2"]
    for kind in KINDS:
        assert "triggers[0]" in story.changed.run.differences(f"{kind}-triggered")


def test_a_resource_without_commands_does_nothing_at_all(story: Story) -> None:
    assert story.made.operation("none") == "create"
    assert story.changed.operation("none") == "update"
    for step in (story.made, story.changed):
        assert step.output("none") == step.output("none", "stderr") == ""


def test_what_failed_when_it_was_made_is_not_recorded_and_is_made_next_time(story: Story) -> None:
    story.made.run.failed()
    assert story.made.output("failing") is None
    assert story.again.operation("failing") == "create"
    assert story.again.output("failing") == "first"


def test_what_failed_when_it_was_changed_keeps_its_outputs_and_runs_next_time(story: Story) -> None:
    story.changed.run.failed()
    assert story.changed.output("failing") == "first"
    story.recovered.run.succeeded()
    assert story.recovered.operation("failing") == "update"
    assert story.recovered.output("failing") == "second"


def test_a_refresh_changes_nothing_and_runs_nothing(story: Story) -> None:
    story.refreshed.run.succeeded()
    assert story.refreshed.said == {}
    assert story.refreshed.output("all") == "update"


def test_a_preview_runs_nothing_and_contacts_no_host(
    commands: CommandProject, remote: Callable[..., Resource], tmp_path: Path
) -> None:
    unreachable = {"host": "127.0.0.1", "port": 1, "dial_error_limit": 0}
    preview = commands.preview_with(
        local("here", create=f"touch {tmp_path}/ran"),
        remote("there", connection=unreachable, create="true"),
        local("after", create=Output("there", "stdout")),
    ).succeeded()
    operations = preview.operations()
    assert [operations[name] for name in ("here", "there", "after")] == ["create"] * 3
    assert not (tmp_path / "ran").exists()


def test_the_output_before_is_in_the_environment_of_update_and_delete(
    commands: CommandProject, tmp_path: Path
) -> None:
    log = tmp_path / "said"

    def pair(stdin: str) -> tuple[Resource, Resource]:
        show = f'echo "$PULUMI_COMMAND_STDOUT/$PULUMI_COMMAND_STDERR" >> {log}'
        steps = {"create": "echo out; echo err >&2", "update": f"{show}; echo new", "stdin": stdin}
        without = {"delete": f"{show}.without", "add_previous_output_in_env": False}
        return local("with", **steps, delete=show), local("without", "with", **steps, **without)

    commands.up_with(*pair("1")).succeeded()
    commands.up_with(*pair("2")).succeeded()
    assert log.read_text().splitlines() == ["out/err", "/"]
    log.unlink()
    commands.destroy().succeeded()
    assert log.read_text() == "new/\n"
    assert log.with_name("said.without").read_text() == "/\n"


def test_defaults_are_stored_as_the_official_provider_stores_them(
    commands: CommandProject, remote: Callable[..., Resource]
) -> None:
    """Otherwise changing between the two providers would run every command again."""
    commands.up_with(remote("remote", stdin="text"), local("local", stdin="text")).succeeded()
    inputs = {r["urn"].rsplit("::", 1)[-1]: r.get("inputs", {}) for r in commands.resources()}
    assert inputs["remote"]["addPreviousOutputInEnv"] is True
    assert inputs["local"] == {"addPreviousOutputInEnv": True, "stdin": "text"}


def test_a_missing_input_is_named_before_anything_runs(project: Project) -> None:
    project.write(
        "import pulumi\n"
        "pulumi.CustomResource('command:remote:Command', 'c', {'create': 'true'},\n"
        "                      pulumi.ResourceOptions(version='1.2.1'))\n"
    )
    assert "connection" in project.preview().failed().errors("c")
