"""The command: exit codes, one JSON document, and help that helps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components import errors
from components.errors import EpibackupError
from components.outcome import read_error, write_error

EPIBACKUP = Path(sys.executable).with_name("epibackup")
BUILDS = Path(__file__).parents[1] / "builds"


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [EPIBACKUP, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def document(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    made = json.loads(done.stdout)
    assert isinstance(made, dict)
    return made


def test_help_names_every_command_and_the_two_flags_of_a_first_run() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("--build", "-b", "--target", "-t", "restore", "list", "show", "trust", "unlock"):
        assert word in done.stdout


@pytest.mark.parametrize(
    "command", ["backup", "plan", "list", "show", "restore", "trust", "clean", "prune", "hold"]
)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage: epibackup " + command in done.stdout


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("epibackup 0.")


def test_a_plan_names_what_is_not_saved_and_contacts_nobody() -> None:
    plan = document("plan", "-b", str(BUILDS / "2.0-onprem"), "-t", "/", "-s", "test-unit")
    names = [service["name"] for service in plan["services"]]
    assert names == ["haproxy", "kafka", "postgresql", "rabbitmq", "zookeeper"]
    assert "OpenSearch (opensearch)" in [item["what"] for item in plan["missing"]]
    assert plan["hosts"]["postgresql1"]["host_key_known"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["-b", "/no/such", "-t", "/"], 2, "/no/such does not exist", "-b"),
        (["plan", "-t", "/"], 2, "build directory is not known", "-b"),
        (["plan", "-b", str(BUILDS / "2.0-onprem")], 2, "target is not known", "-t"),
        (["plan", "--service", "postgre"], 2, "", ""),
        (["list", "-t", "/no/such"], 8, "/no/such does not exist", "mkdir"),
        (["catalog", "-s", "other", "rebuild"], 2, "flags before rebuild", "catalog rebuild"),
        (["prune", "-t", "/"], 2, "has no retention policy", "keep_daily"),
        (["hold", "20260101T000000Z", "-t", "/"], 2, "either a reason or an end", "--reason"),
        (["hold", "--release", "-t", "/"], 2, "which run is not said", "epibackup hold RUN"),
        (["hold", "20260101T000000Z", "--reason", "x", "-t", "/"], 6, "no run 2026", "list"),
        (["show", "yesterday", "-t", "/"], 2, "'yesterday' is no run id", "UTC"),
        (["show", "20260101T000000Z", "-t", "/"], 6, "no run 20260101T000000Z", "list"),
        (["restore", "--rename", "x", "-t", "/"], 2, "--rename x is no pair", "OLD=NEW"),
        (["--run", "now", "-b", "/"], 2, "'now' is no run id", "UTC"),
        (["-t", "/x", "list"], 2, "flags before list", "behind"),
    ],
)
def test_errors_have_a_code_a_message_and_a_hint(
    arguments: list[str], code: int, message: str, hint: str
) -> None:
    stack = [] if arguments[0].startswith("-") else ["-s", "test-unit"]
    done = run(*arguments, *stack, "--json")
    assert done.returncode == code, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == code
    assert message in error["message"]
    assert hint in error["hint"]


def test_without_json_an_error_is_text_on_stderr_with_what_to_try() -> None:
    done = run("-b", "/no/such", "-t", "/", "-s", "test-unit")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error: the build directory /no/such does not exist" in done.stderr
    assert "try: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b[" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(["--skpi", "x"], "--skip"), (["restroe"], "restore"), (["list", "--jsno"], "--json")],
)
def test_an_unknown_flag_or_command_is_refused_with_the_nearest(
    arguments: list[str], nearest: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert nearest in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_in_the_environment_is_no_obstacle_to_other_commands() -> None:
    done = run("config", "sample", EPIBACKUP_RUN_ID="20261122T013000Z")
    assert done.returncode == 0, done.stderr


def test_an_unknown_flag_is_told_as_json_where_that_is_asked_for() -> None:
    done = run("list", "--nosuch", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"


def test_a_restore_that_nobody_confirms_is_refused(tmp_path: Path) -> None:
    done = run("restore", "latest", "-t", str(tmp_path), "-b", str(BUILDS / "2.0-onprem"), "--json")
    assert done.returncode == 6


def test_every_exit_code_has_one_error_and_the_documented_number() -> None:
    found = {
        kind.exit_code: kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, EpibackupError)
    }
    assert found == {
        1: "error",
        2: "usage",
        3: "incomplete",
        4: "preflight_refused",
        5: "policy_refused",
        6: "not_found",
        7: "locked",
        8: "target_unreachable",
        9: "verification_failed",
        130: "interrupted",
    }


def test_an_error_crosses_a_process_boundary(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    write_error(path, errors.TargetUnreachable("full", "free space"))
    error = read_error(path)
    assert isinstance(error, errors.TargetUnreachable)
    assert (error.message, error.hint) == ("full", "free space")
    assert path.stat().st_mode & 0o077 == 0
    assert read_error(tmp_path / "none") is None
