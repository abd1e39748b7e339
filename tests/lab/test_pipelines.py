"""The nightly and drift jobs of the ready-made pipelines, against real hosts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from tests.lab.product import Product, product
from tests.policy.pipelines import github_step, gitlab_script, run_as_job


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-nightly") as made:
        # No key file: the job has the key, in an agent.
        made.configure(ssh={"agent": True})
        made.environment |= {"STACK": made.stack}
        made.environment.pop("SSH_AUTH_SOCK", None)
        yield made


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_the_nightly_job_makes_a_backup_with_a_key_in_memory_only_and_drift_looks_at_it(
    epibackup: Product, tmp_path: Path, platform: str
) -> None:
    job = tmp_path / "job"
    job.mkdir()
    key = epibackup.cluster.private_key
    environment = dict(epibackup.environment)
    if platform == "github":
        commands = github_step("epibackup-nightly.yml", "backup", "Backup")
        environment["SSH_KEY"] = key.read_text()
    else:
        commands = gitlab_script("epibackup-nightly")
        # A variable of the type file: GitLab writes it for everybody to read.
        variable = tmp_path / "EPIBACKUP_SSH_KEY"
        variable.write_text(key.read_text())
        variable.chmod(0o666)
        environment["EPIBACKUP_SSH_KEY"] = str(variable)
    done = run_as_job(commands, environment, job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(epibackup.published()) == 1
    assert [path.name for path in job.iterdir()] == [".venv"]
    exported = epibackup.pulumi("stack", "export", "--show-secrets").stdout
    assert "postgresql1" in exported
    assert "PRIVATE KEY" not in exported

    drift = (
        github_step("epibackup-drift.yml", "drift", "Drift")
        if platform == "github"
        else gitlab_script("epibackup-drift")
    )
    done = run_as_job(drift, epibackup.environment, job)
    assert done.returncode == 0, done.stdout + done.stderr
    (epibackup.target / epibackup.published()[0]).unlink()
    done = run_as_job(drift, epibackup.environment, job)
    assert done.returncode == 5
    assert "gone from the target" in done.stderr
