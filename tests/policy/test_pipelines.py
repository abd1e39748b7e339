"""The ready-made pipelines: good in the eyes of their linters, and their commands run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest
import yaml

from engine.cache import cache_folder
from engine.golang import go_toolchain
from tests.policy.pipelines import GITHUB, GITLAB, github_step, gitlab, gitlab_script, run_as_job
from tests.policy.stack import BUILD, ROOT, Stack, stack_of_tests

BIN = Path(sys.executable).parent
WORKFLOWS = sorted(GITHUB.glob("*.yml"))
ACTIONLINT = "v1.7.12"


def output_of(*command: str | Path) -> str:
    """Run a linter; the test fails with what it says."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def actionlint() -> Path:
    """The linter of workflows, built from its Go module once for a user."""
    folder = cache_folder() / f"actionlint-{ACTIONLINT}"
    program = folder / "actionlint"
    if not program.exists():
        go = go_toolchain((1, 24), print)
        subprocess.run(
            [go.executable, "install", f"github.com/rhysd/actionlint/cmd/actionlint@{ACTIONLINT}"],
            env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-modcacherw"},
            check=True,
        )
    return program


def test_workflows_please_actionlint(actionlint: Path) -> None:
    output_of(actionlint, "-shellcheck", BIN / "shellcheck", *WORKFLOWS)


def test_workflows_please_zizmor() -> None:
    output_of(BIN / "zizmor", "--offline", "--persona", "pedantic", "--no-progress", *WORKFLOWS)


@pytest.mark.parametrize(
    ("schema", "files"), [("github-workflows", WORKFLOWS), ("gitlab-ci", [GITLAB])]
)
def test_pipelines_fit_their_platforms_schema(schema: str, files: list[Path]) -> None:
    output_of(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


def test_the_scripts_for_gitlab_please_shellcheck(tmp_path: Path) -> None:
    for name, job in gitlab().items():
        if isinstance(job, dict) and "script" in job:
            script = tmp_path / f"{name}.sh"
            script.write_text("#!/bin/bash\nset -eo pipefail\n" + "\n".join(job["script"]))
            output_of(BIN / "shellcheck", script)


def test_no_workflow_runs_a_strangers_code_with_our_secrets() -> None:
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text())
        triggers = document[True]  # YAML 1.1 reads `on` as true
        assert "pull_request_target" not in str(triggers)
        assert document["permissions"] == {}
        for job in document["jobs"].values():
            writes = [name for name, level in job["permissions"].items() if level == "write"]
            runs_ours = any("checkout" in step.get("uses", "") for step in job["steps"])
            assert not (writes and runs_ours), f"a job of {path.name} may write and runs changes"
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stack_of_tests("test-pipelines", tmp_path) as made:
        made.environment |= {"STACK": made.name}
        yield made


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Where a job works."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def test_a_pull_request_that_changes_nothing_for_the_worse_passes(stack: Stack, job: Path) -> None:
    # The build directory as a path in the checkout, wherever that is.
    stack.configure_well(build=str(BUILD.relative_to(ROOT)))
    files = {"GITHUB_OUTPUT": str(job / "output"), "GITHUB_STEP_SUMMARY": str(job / "summary")}
    commands = github_step("epibackup-preview.yml", "preview", "Preview")
    done = run_as_job(commands, {**stack.environment, **files}, job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PostgreSQL" in (job / "summary").read_text()
    # The output is one value of many lines, between two lines that nobody can guess.
    first, *lines, last = (job / "output").read_text().splitlines()
    assert first == f"comment<<{last}"
    assert "(code 0)" in lines[0]
    assert "~~~~" in lines[-1]


def test_a_pull_request_that_weakens_the_backup_fails_with_a_comment_that_says_why(
    stack: Stack, job: Path
) -> None:
    stack.configure_well(skip=["postgresql"])
    files = {"GITHUB_OUTPUT": str(job / "output"), "GITHUB_STEP_SUMMARY": str(job / "summary")}
    commands = github_step("epibackup-preview.yml", "preview", "Preview")
    done = run_as_job(commands, {**stack.environment, **files}, job)
    assert done.returncode == 5, done.stdout + done.stderr
    comment = "\n".join((job / "output").read_text().splitlines()[1:-1])
    assert "PostgreSQL (postgresql) on postgresql1, postgresql2 is not saved" in comment

    # The comment's own job gets it as GitHub hands it over; `gh` is what GitHub's machines have.
    gh = job / "gh"
    gh.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\ncat > body\n')
    gh.chmod(0o755)
    environment = {"PATH": f"{job}:{os.environ['PATH']}", "PULL_REQUEST": "7", "COMMENT": comment}
    commands = github_step("epibackup-preview.yml", "comment", "Comment")
    assert run_as_job(commands, environment, job).returncode == 0
    assert (job / "body").read_text() == comment + "\n"
    assert "7" in (job / "arguments").read_text().split()


def test_the_preview_for_gitlab_leaves_its_plan_as_an_artifact(stack: Stack, job: Path) -> None:
    stack.configure_well(skip=["postgresql"])
    done = run_as_job(gitlab_script("epibackup-preview"), stack.environment, job)
    assert done.returncode == 5, done.stdout + done.stderr
    for name in gitlab()["epibackup-preview"]["artifacts"]["paths"]:
        assert "PostgreSQL (postgresql)" in (job / name).read_text()


def test_the_comment_for_gitlab_is_posted_with_the_token_in_a_header(job: Path) -> None:
    posted: list[tuple[str, str | None, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = parse_qs(self.rfile.read(length).decode())["body"][0]
            posted.append((self.path, self.headers["PRIVATE-TOKEN"], body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    (job / "comment.md").write_text("what & why\n")
    environment = {
        "PATH": os.environ["PATH"],
        "EPIBACKUP_COMMENT_TOKEN": "only for tests",
        "CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4",
        "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "7",
    }
    try:
        done = run_as_job(gitlab_script("epibackup-comment"), environment, job)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    path = "/api/v4/projects/3/merge_requests/7/notes"
    assert posted == [(path, "only for tests", "what & why\n")]


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_drift_that_nobody_has_looked_for_is_no_success(
    stack: Stack, job: Path, platform: str
) -> None:
    """With a stack that has no run yet there is nothing to compare with: that is not good."""
    stack.configure_well()
    commands = (
        github_step("epibackup-drift.yml", "drift", "Drift")
        if platform == "github"
        else gitlab_script("epibackup-drift")
    )
    done = run_as_job(commands, stack.environment, job)
    assert done.returncode != 0
    assert done.stderr.strip()
