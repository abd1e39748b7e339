"""Which command runs when, as resources of the `command` provider are made, changed and deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support.inline_program import Output
from tests.engine.support.projects import Project
from tests.engine.support.resources import CommandProject, Resource, local

KINDS = ("local", "remote")
Describe = Callable[..., tuple[Resource, Resource]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder in which commands write their names to a file for each kind."""
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def both(remote: Callable[..., Resource], log: Path) -> Describe:
    """Describes a local and a remote command with the same inputs.

    In a command, `say` appends its arguments to the file of its kind.
    """

    def describe(triggers: list[str] | None = None, **texts: str) -> tuple[Resource, Resource]:
        def of(kind: str) -> dict[str, Any]:
            say = f'say() {{ echo "$@" >> {log}/{kind}; }}; '
            return {
                "triggers": triggers,
                **{name: text if name == "stdin" else say + text for name, text in texts.items()},
            }

        return local("local", **of("local")), remote("remote", **of("remote"))

    return describe


def said(log: Path) -> list[str]:
    """Return what both commands have said, which must be the same, and forget it."""
    texts = []
    for kind in KINDS:
        file = log / kind
        texts.append(file.read_text() if file.exists() else "")
        file.unlink(missing_ok=True)
    assert texts[0] == texts[1]
    return texts[0].splitlines()


def outputs(commands: CommandProject, name: str) -> str:
    """Return an output that is the same for both commands."""
    first, second = (commands.outputs(kind)[name] for kind in KINDS)
    assert first == second
    return str(first)


def test_create_update_and_delete_each_run_their_own_command(
    commands: CommandProject, both: Describe, log: Path
) -> None:
    steps = {step: f"say {step}; echo {step}" for step in ("create", "update", "delete")}
    commands.up_with(*both(**steps)).succeeded()
    assert said(log) == ["create"]
    assert outputs(commands, "stdout") == "create"

    again = commands.up_with(*both(**steps)).succeeded()
    assert said(log) == []
    assert [again.operations()[kind] for kind in KINDS] == ["same", "same"]

    changed = commands.up_with(*both(**steps, stdin="new")).succeeded()
    assert said(log) == ["update"]
    assert [changed.operations()[kind] for kind in KINDS] == ["update", "update"]
    assert outputs(commands, "stdout") == "update"

    commands.up_with().succeeded()
    assert said(log) == ["delete"]
    assert not any(map(commands.has, KINDS))


def test_without_an_update_command_the_create_command_runs_again(
    commands: CommandProject, both: Describe, log: Path
) -> None:
    commands.up_with(*both(create="say one")).succeeded()
    changed = commands.up_with(*both(create="say two")).succeeded()
    assert said(log) == ["one", "two"]
    for kind in KINDS:
        assert changed.operations()[kind] == "update"
        assert changed.differences(kind) == ["create"]


def test_new_triggers_replace_and_delete_runs_afterwards_with_the_old_inputs(
    commands: CommandProject, both: Describe, log: Path
) -> None:
    def generation(number: int) -> tuple[Resource, Resource]:
        steps = {step: f"say {step} {number}" for step in ("create", "update", "delete")}
        return both(**steps, triggers=[f"generation {number}"])

    commands.up_with(*generation(1)).succeeded()
    replaced = commands.up_with(*generation(2)).succeeded()
    assert said(log) == ["create 1", "create 2", "delete 1"]
    for kind in KINDS:
        assert "triggers[0]" in replaced.differences(kind)


def test_a_resource_without_commands_does_nothing_at_all(
    commands: CommandProject, both: Describe
) -> None:
    commands.up_with(*both(stdin="unread")).succeeded()
    assert outputs(commands, "stdout") == outputs(commands, "stderr") == ""
    commands.up_with(*both(stdin="changed")).succeeded()
    commands.destroy().succeeded()


def test_what_failed_is_not_recorded_and_runs_again_next_time(
    commands: CommandProject, both: Describe, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    first = both(create=f"test -e {ready} && echo first")
    every = ("--continue-on-error",)
    commands.up_with(*first, flags=every).failed()
    assert not any(map(commands.has, KINDS))
    ready.touch()
    commands.up_with(*first).succeeded()

    ready.unlink()
    second = both(create=f"test -e {ready} && echo second")
    commands.up_with(*second, flags=every).failed()
    assert outputs(commands, "stdout") == "first"
    ready.touch()
    assert commands.up_with(*second).succeeded().operations()["remote"] == "update"
    assert outputs(commands, "stdout") == "second"


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


def test_a_refresh_changes_nothing_and_runs_nothing(
    commands: CommandProject, both: Describe, log: Path
) -> None:
    commands.up_with(*both(create="say ran; echo out")).succeeded()
    refreshed = commands.run("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    refreshed.succeeded()
    assert outputs(commands, "stdout") == "out"
    assert said(log) == ["ran"]


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
    commands: CommandProject, both: Describe
) -> None:
    """Otherwise changing between the two providers would run every command again."""
    commands.up_with(*both(stdin="text")).succeeded()
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
