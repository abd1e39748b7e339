"""The ready-made pipelines, as their platforms would run them: the jobs' own commands."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / "pipelines" / "github"
GITLAB = ROOT / "pipelines" / "gitlab" / "epibackup.gitlab-ci.yml"


def github_step(file: str, job: str, step: str) -> str:
    """The commands of a step of a workflow."""
    document = yaml.safe_load((GITHUB / file).read_text())
    (found,) = [item for item in document["jobs"][job]["steps"] if item.get("name") == step]
    assert isinstance(found["run"], str)
    return found["run"]


def gitlab_script(job: str) -> str:
    """The commands of a job of the GitLab pipeline."""
    return "\n".join(gitlab()[job]["script"])


def gitlab() -> Any:
    """The GitLab pipeline."""
    return yaml.safe_load(GITLAB.read_text())


def run_as_job(
    commands: str, environment: Mapping[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    """Run a job's commands as both platforms do: bash that ends at the first error.

    folder: where the job works. The checkout's own environment is reached from there.
    """
    here = folder / ".venv"
    if not here.exists():
        here.symlink_to(ROOT / ".venv")
    assert not re.search(r"\$\{\{", commands), "an expression in a script can be injected into"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
