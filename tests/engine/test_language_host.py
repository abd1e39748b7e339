"""Programs, run by the embedded language host."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.engine.support.environments import borrow_packages
from tests.engine.support.projects import Project, Run, interrupt
from tests.engine.support.sshd import wait_until

PROVIDER = "pulumi-resource-command"


def test_a_program_runs_with_its_configuration_secrets_and_names(project: Project) -> None:
    project.write(
        "import pulumi\n"
        "config = pulumi.Config()\n"
        "print('plain:', config.require('plain'))\n"
        "names = (pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization())\n"
        "pulumi.export('names', list(names))\n"
        "pulumi.export('dry', pulumi.runtime.is_dry_run())\n"
        "pulumi.export('secret', config.require_secret('hidden'))\n"
        "pulumi.export('length', len(config.require('hidden')))\n"
    )
    project.make_stack("test")
    project.cli("config", "set", "plain", "text with spaces", "--stack", "test")
    project.cli("config", "set", "--secret", "hidden", "do not show", "--stack", "test")
    run = project.up().succeeded()
    assert "plain: text with spaces" in run.text
    assert "do not show" not in run.text
    exports = project.exports()
    assert exports["names"] == [project.name, "test", "organization"]
    assert exports["dry"] is False
    assert exports["length"] == len("do not show")
    assert "ciphertext" in exports["secret"]


@pytest.mark.parametrize("main", ["program", "program/start.py"])
def test_the_working_directory_is_that_of_main_and_its_folder_can_be_imported_from(
    main: str, project: Project
) -> None:
    program = (
        "import os, sys, pulumi\n"
        "pulumi.export('folder', os.getcwd())\n"
        "pulumi.export('argv', sys.argv)\n"
        "pulumi.export('name', __name__)\n"
    )
    if not main.endswith(".py"):
        # As with Pulumi's own host: the folder of a program that is a file is not on the path.
        program = f"import beside\n{program}pulumi.export('beside', beside.VALUE)\n"
    project.write(program, main=main)
    folder = project.folder / main
    folder = folder.parent if main.endswith(".py") else folder
    (folder / "beside.py").write_text("VALUE = 'found'\n")
    project.up().succeeded()
    assert project.exports()["folder"] == str(folder)
    assert project.exports()["name"] == "__main__"
    assert project.exports()["argv"] == [Path(main).name if main.endswith(".py") else "."]
    assert main.endswith(".py") or project.exports()["beside"] == "found"


def test_the_interpreter_of_the_virtualenv_option_is_used_and_its_programs_are_on_path(
    project: Project, environment: Path
) -> None:
    options = {"virtualenv": "own", "toolchain": "pip"}
    project.write(
        "import os, shutil, sys, pulumi\n"
        "pulumi.export('prefix', sys.prefix)\n"
        "pulumi.export('python', shutil.which('python'))\n"
        "pulumi.export('active', os.environ['VIRTUAL_ENV'])\n"
        "print('to stdout')\n"
        "print('to stderr', file=sys.stderr)\n",
        options=options,
    )
    (project.folder / "own").symlink_to(environment)
    run = project.up().succeeded()
    exports = project.exports()
    assert exports["prefix"] == exports["active"] == f"{project.folder}/own"
    assert exports["python"] == f"{project.folder}/own/bin/python"
    assert "to stdout" in run.text
    assert "to stderr" in run.text


def test_a_virtualenv_that_is_broken_is_an_error_that_says_what_to_do(project: Project) -> None:
    project.write("", options={"virtualenv": "broken"})
    (project.folder / "broken").mkdir()
    (project.folder / "broken" / "file").touch()
    text = project.preview().failed().text
    assert f"there is no virtual environment at {project.folder}/broken" in text
    assert "python3 -m venv" in text


def test_a_virtualenv_that_is_missing_is_made_with_the_programs_requirements(
    project: Project, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        "[project]\nname = 'needed'\nversion = '1'\n"
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
        "[tool.hatch.build.targets.wheel]\ninclude = ['needed.py']\n"
    )
    (package / "needed.py").write_text("VALUE = 'installed'\n")
    wheels = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *wheels, str(package)], check=True)
    project.write(
        "import needed\nraise SystemExit('found ' + needed.VALUE)\n",
        options={"virtualenv": "made"},
    )
    wheel = next(tmp_path.glob("needed*.whl"))
    (project.folder / "requirements.txt").write_text(f"{wheel}\n")
    text = project.preview().failed().text
    # Pulumi's SDK is not among the requirements: the host says so, and by which interpreter.
    assert "The Pulumi SDK cannot be imported by" in text
    assert (project.folder / "made" / "bin" / "python").exists()
    made = next((project.folder / "made").glob("lib/python*/site-packages/needed.py"))
    assert made.exists()


def test_the_uv_toolchain_installs_and_runs_the_projects_environment(project: Project) -> None:
    program = "import sys, pulumi\npulumi.export('prefix', sys.prefix)\n"
    project.write(program, options={"toolchain": "uv"})
    (project.folder / "pyproject.toml").write_text(
        "[project]\nname = 'p'\nversion = '1'\nrequires-python = '>=3.11'\n"
    )
    uv = Path(sys.executable).parent
    project.environment["PATH"] = f"{uv}:{project.environment['PATH']}"
    project.environment["UV_OFFLINE"] = "1"
    project.environment["UV_PYTHON"] = sys.executable
    assert "Finished installing dependencies" in project.cli("install")
    borrow_packages(project.folder / ".venv")
    project.up().succeeded()
    assert project.exports()["prefix"] == f"{project.folder}/.venv"
    assert (project.folder / "uv.lock").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"toolchain": "conda"}, "toolchain is conda: use pip, uv or poetry"),
        ({"typechecker": "pylint"}, "typechecker is pylint: use mypy or pyright"),
        ({"toolchain": "poetry"}, "there is no `poetry` on PATH"),
    ],
)
def test_options_that_cannot_be_met_are_named(
    options: dict[str, str], reason: str, project: Project
) -> None:
    project.environment["PATH"] = ":".join(
        entry for entry in project.environment["PATH"].split(":")
        if not (Path(entry) / "poetry").exists()
    )  # fmt: skip
    project.write("", options=options)
    assert reason in project.preview().failed().text


def test_a_type_checker_stops_a_program_that_has_wrong_types(
    project: Project, environment: Path
) -> None:
    options = {"virtualenv": str(environment), "typechecker": "mypy"}
    project.write("number: int = 'text'\n", options=options)
    text = project.preview().failed().text
    assert "Incompatible types in assignment" in text
    assert "mypy failed" in text


def test_a_run_error_is_shown_without_a_traceback(project: Project) -> None:
    project.write("import pulumi\nraise pulumi.RunError('the key KEY is missing')\n")
    text = project.preview().failed().text
    assert "the key KEY is missing" in text
    assert "Traceback" not in text
    assert "exit code" not in text


def test_another_exception_is_shown_with_its_traceback_once_from_the_programs_first_line(
    project: Project,
) -> None:
    project.write("def fail():\n    raise KeyError('KEY')\n\nfail()\n", main="program")
    text = project.preview().failed().text
    details = text.rpartition("Diagnostics:")[2]
    assert details.count("KeyError: 'KEY'") == 1
    assert "__main__.py" in details
    assert "runpy" not in details
    assert "run_program" not in details


def test_a_program_that_exits_with_a_code_is_an_error(project: Project) -> None:
    project.write("import sys\nsys.exit(7)\n")
    assert "exit code: 7" in project.preview().failed().text


def test_a_program_that_is_not_there_is_named(project: Project) -> None:
    project.write("", main="program")
    (project.folder / "program" / "__main__.py").unlink()
    text = project.preview().failed().text
    assert f"there is no program {project.folder}/program/__main__.py" in text


def test_a_stack_reference_to_itself_carries_a_list_from_update_to_update(
    project: Project,
) -> None:
    project.write(
        "import os, pulumi\n"
        "name = '/'.join((pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack()))\n"
        "known = pulumi.StackReference('self', stack_name=name).get_output('catalog')\n"
        "entry = {'run': os.environ['RUN']}\n"
        "pulumi.export('catalog', known.apply(lambda old: [entry, *(old or [])][:2]))\n"
    )
    for number in range(3):
        project.environment["RUN"] = f"r{number}"
        project.up().succeeded()
    assert [entry["run"] for entry in project.exports()["catalog"]] == ["r2", "r1"]


def test_two_stacks_can_be_updated_at_once(project: Project) -> None:
    project.write(
        "import pulumi, time\ntime.sleep(1)\npulumi.export('stack', pulumi.get_stack())\n"
    )
    runs: dict[str, Run] = {}

    def up(stack: str) -> None:
        process = project.start("up", "--yes", "--skip-preview", stack=stack)
        text, _ = process.communicate(timeout=120)
        runs[stack] = Run(process.returncode, text, [])

    threads = [threading.Thread(target=up, args=(stack,)) for stack in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stack in ("one", "two"):
        assert f'stack: "{stack}"' in runs[stack].succeeded().text


def test_an_interrupted_program_ends_quietly(project: Project, tmp_path: Path) -> None:
    project.write(
        f"import pathlib, time\npathlib.Path('{tmp_path}/started').touch()\ntime.sleep(60)\n"
    )
    process = project.start("up", "--yes", "--skip-preview")
    wait_until((tmp_path / "started").exists, 15)
    interrupt(process)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1, text
    assert "Traceback" not in text
    assert "KeyboardInterrupt" not in text


def test_a_debugger_is_refused_honestly(project: Project) -> None:
    project.write("")
    assert "cannot attach a debugger" in project.preview("--attach-debugger").failed().text


def test_about_and_dependencies_are_those_of_the_programs_environment(
    project: Project, environment: Path
) -> None:
    project.write("", options={"virtualenv": str(environment)})
    about = json.loads(project.cli("about", "--json", "--transitive"))
    assert about["runtime"]["executable"] == f"{environment}/bin/python"
    names = {dependency["name"]: dependency["version"] for dependency in about["dependencies"]}
    assert names["pulumi-command"] == "1.2.1"


def test_an_installed_plugin_is_used_where_none_is_on_path_and_none_is_fetched_unasked(
    project: Project,
) -> None:
    """The host names no plugins to the CLI, which looks for those that are used, when they are."""
    folders = project.environment["PATH"].split(":")
    providers = [entry for entry in folders if (Path(entry) / PROVIDER).exists()]
    project.environment["PATH"] = ":".join(e for e in folders if e not in providers)
    project.write("import pulumi_command\n")
    project.up().succeeded()

    project.write("from pulumi_command import local\nlocal.Command('c', create='echo hello')\n")
    assert "command" in project.up().failed().text
    installed = project.folder / "home" / "plugins" / "resource-command-v1.2.1"
    installed.mkdir(parents=True)
    (installed / PROVIDER).symlink_to(Path(providers[0]) / PROVIDER)
    run = project.up().succeeded()
    assert project.outputs("c")["stdout"] == "hello"
    assert "warning" not in run.text


def test_generating_an_sdk_is_refused_honestly(project: Project, tmp_path: Path) -> None:
    project.write("")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"name": "x", "version": "1.0.0"}))
    result = subprocess.run(
        [project.pulumi, "package", "gen-sdk", str(schema), "--language", "python", "--out",
         str(tmp_path / "sdk")],
        cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "cannot generate SDKs" in result.stdout + result.stderr
