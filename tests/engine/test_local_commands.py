"""What only `command:local:Command` and `command:local:run` have."""

import hashlib
from pathlib import Path

import pytest

from tests.engine.support.inline_program import Output
from tests.engine.support.projects import Project
from tests.engine.support.resources import CommandProject, Resource, local
from tests.engine.support.sshd import wait_until

EVERY = ("--continue-on-error",)


def test_environment_directory_and_interpreter_are_honoured(
    commands: CommandProject, tmp_path: Path
) -> None:
    commands.environment["INHERITED"] = "yes"
    commands.up_with(
        local("environment", create="echo $OWN $INHERITED", environment={"OWN": "a  b"}),
        local("directory", create="pwd", dir=str(tmp_path)),
        local("here", create="pwd"),
        local("bash", create='echo "$BASH"', interpreter=["/bin/bash", "-c"]),
        local("python", create="import sys; print(sys.argv)",
              interpreter=["python3", "-c"]),
    ).succeeded()  # fmt: skip
    assert commands.outputs("environment")["stdout"] == "a b yes"
    assert commands.outputs("directory")["stdout"] == str(tmp_path)
    assert commands.outputs("here")["stdout"] == str(commands.folder)
    assert commands.outputs("bash")["stdout"] == "/bin/bash"
    assert commands.outputs("python")["stdout"] == "['-c']"


def test_files_that_patterns_choose_become_assets_and_an_archive(
    commands: CommandProject, tmp_path: Path
) -> None:
    names = "a.js src/b.js src/deep/c.js src/secret.js"
    make = f"mkdir -p src/deep; for name in {names}; do echo $name > $name; done"
    commands.up_with(
        local("l", create=make, dir=str(tmp_path), asset_paths=["*.js", "src/*.js", "!**secret*"],
              archive_paths=["src/**", "!**/secret.*"]),
    ).succeeded()  # fmt: skip
    assets = commands.outputs("l")["assets"]
    assert sorted(assets) == ["a.js", "src/b.js"]
    assert assets["a.js"]["path"] == str(tmp_path / "a.js")
    assert assets["a.js"]["hash"] == hashlib.sha256(b"a.js\n").hexdigest()
    archived = commands.outputs("l")["archive"]["assets"]
    assert sorted(archived) == ["src/b.js", "src/deep/c.js"]


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


def test_a_directory_or_an_interpreter_that_is_not_there_or_too_little_time_is_an_error(
    commands: CommandProject, tmp_path: Path
) -> None:
    limit = {"custom_timeouts": {"create": "1s"}}
    run = commands.up_with(
        local("directory", create="true", dir=str(tmp_path / "nowhere")),
        local("interpreter", create="true", interpreter=["no-such-program"]),
        Resource("slow", "local", {"create": "sleep 60"}, options=limit),
        flags=EVERY,
    ).failed()
    assert "nowhere" in run.errors("directory")
    assert "no-such-program" in run.errors("interpreter")
    assert "signal: " in run.errors("slow")


def test_what_a_command_leaves_in_the_background_with_its_streams_closed_lives_on(
    commands: CommandProject, tmp_path: Path
) -> None:
    script = f"(sleep 3; echo late > {tmp_path}/late) > /dev/null 2>&1 & echo done"
    commands.up_with(local("l", create=script)).succeeded()
    assert not (tmp_path / "late").exists()
    wait_until((tmp_path / "late").exists, 15)


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
