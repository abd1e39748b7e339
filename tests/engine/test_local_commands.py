"""What only `command:local:Command` and `command:local:run` have."""

import hashlib
from pathlib import Path

import pytest

from tests.engine.support.inline_program import Output
from tests.engine.support.projects import Project, Run
from tests.engine.support.resources import CommandProject, Resource, local
from tests.engine.support.sshd import wait_until


@pytest.fixture(scope="module")
def run(shared: CommandProject, folder: Path) -> Run:
    """One update with commands that use what is only there locally; some fail."""
    shared.environment["INHERITED"] = "yes"
    names = "a.js src/b.js src/deep/c.js src/secret.js"
    files = f"mkdir -p src/deep; for name in {names}; do echo $name > $name; done"
    late = f"(sleep 3; echo late > {folder}/late) > /dev/null 2>&1 & echo done"
    limit = {"custom_timeouts": {"create": "1s"}}
    return shared.up_with(
        local("environment", create="echo $OWN $INHERITED", environment={"OWN": "a  b"}),
        local("directory", create="pwd", dir=str(folder)),
        local("here", create="pwd"),
        local("bash", create='echo "$BASH"', interpreter=["/bin/bash", "-c"]),
        local("python", create="import sys; print(sys.argv)", interpreter=["python3", "-c"]),
        local("files", create=files, dir=str(folder), archive_paths=["src/**", "!**/secret.*"],
              asset_paths=["*.js", "src/*.js", "!**secret*"]),
        local("late", create=late),
        local("no-directory", create="true", dir=str(folder / "nowhere")),
        local("no-interpreter", create="true", interpreter=["no-such-program"]),
        Resource("slow", "local", {"create": "sleep 60"}, options=limit),
        flags=("--continue-on-error",),
    ).failed()  # fmt: skip


def test_environment_directory_and_interpreter_are_honoured(
    run: Run, shared: CommandProject, folder: Path
) -> None:
    assert shared.outputs("environment")["stdout"] == "a b yes"
    assert shared.outputs("directory")["stdout"] == str(folder)
    assert shared.outputs("here")["stdout"] == str(shared.folder)
    assert shared.outputs("bash")["stdout"] == "/bin/bash"
    assert shared.outputs("python")["stdout"] == "['-c']"


def test_a_directory_or_an_interpreter_that_is_not_there_is_an_error(run: Run) -> None:
    assert "nowhere" in run.errors("no-directory")
    assert "no-such-program" in run.errors("no-interpreter")


def test_a_time_limit_of_the_resource_ends_the_command(run: Run) -> None:
    assert "signal: " in run.errors("slow")


def test_files_that_patterns_choose_become_assets_and_an_archive(
    run: Run, shared: CommandProject, folder: Path
) -> None:
    assets = shared.outputs("files")["assets"]
    assert sorted(assets) == ["a.js", "src/b.js"]
    assert assets["a.js"]["path"] == str(folder / "a.js")
    assert assets["a.js"]["hash"] == hashlib.sha256(b"a.js\n").hexdigest()
    archived = shared.outputs("files")["archive"]["assets"]
    assert sorted(archived) == ["src/b.js", "src/deep/c.js"]


def test_what_a_command_leaves_in_the_background_with_its_streams_closed_lives_on(
    run: Run, shared: CommandProject, folder: Path
) -> None:
    assert shared.outputs("late")["stdout"] == "done"
    wait_until((folder / "late").exists, 15)


def test_an_asset_that_a_command_made_can_trigger_another(
    commands: CommandProject, tmp_path: Path
) -> None:
    def pair(text: str) -> tuple[Resource, Resource]:
        make = local(
            "make", create=f"echo {text} > made", dir=str(tmp_path), archive_paths=["made"]
        )
        use = local("use", create=f"cat {tmp_path}/made", triggers=[Output("make", "archive")])
        return make, use

    commands.up_with(*pair("one")).succeeded()
    commands.up_with(*pair("two")).succeeded()
    assert commands.outputs("use")["stdout"] == "two"


@pytest.mark.parametrize("command", ["up", "preview"])
def test_the_run_function_runs_each_time_the_program_does(command: str, project: Project) -> None:
    project.write(
        "import pulumi\n"
        "from pulumi_command import local\n"
        "result = local.run(command='echo $WORD; echo err >&2', environment={'WORD': 'hello'})\n"
        "pulumi.export('out', result.stdout + '/' + result.stderr)\n"
        "plain = local.run_output(command='echo open')\n"
        "hidden = local.run_output(command=pulumi.Output.secret('echo hidden'))\n"
        "pulumi.export('plain', plain.stdout)\n"
        "pulumi.export('hidden', hidden.stdout)\n"
    )
    run = project.up() if command == "up" else project.preview()
    assert 'out   : "hello/err"' in run.succeeded().text
    assert 'plain : "open"' in run.text
    assert "hidden: [secret]" in run.text


def test_a_run_function_that_fails_stops_the_program_with_its_output(project: Project) -> None:
    project.write("from pulumi_command import local\nlocal.run(command='echo why; exit 5')\n")
    text = project.up().failed().text
    assert "exit status 5" in text
    assert "why" in text
