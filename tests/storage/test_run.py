"""Storage in the real program: where archives go, and what a preview shows."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.policy.stack import Stack, stack_of_tests

AWS = {"kind": "aws", "aws": {"bucket": "of-the-run", "prefix": "production"}}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with stack_of_tests("storage-run", tmp_path) as made:
        yield made


@pytest.fixture
def with_doubles(stack: Stack, doubles: Path, cloud: Mapping[str, str]) -> Stack:
    """The same, with an engine that has the doubles."""
    path = os.pathsep.join((str(doubles), stack.environment["PATH"]))
    stack.environment.update({**cloud, "PATH": path})
    return stack


def test_a_preview_shows_the_storage_before_what_is_done_on_hosts(
    with_doubles: Stack, cloud: Mapping[str, str], s3: Any
) -> None:
    endpoint = {"endpoint_url": cloud["AWS_ENDPOINT_URL"]}
    with_doubles.configure_well(target=None, storage=AWS, s3=endpoint)
    document = with_doubles.json("plan")
    assert document["target"] == "s3://of-the-run/production"
    with_doubles.pulumi("stack", "init")
    done = with_doubles.pulumi("preview", "--color", "never")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    bucket = next(number for number, line in enumerate(lines) if "storage-bucket" in line)
    agent = next(number for number, line in enumerate(lines) if "agent-kafka1-folder" in line)
    assert "aws:s3:Bucket" in lines[bucket]
    assert bucket < agent
    assert s3.list_buckets()["Buckets"] == [] or "of-the-run" not in {
        item["Name"] for item in s3.list_buckets()["Buckets"]
    }


def test_a_plugin_that_is_missing_is_named_with_the_command_that_brings_it(stack: Stack) -> None:
    stack.configure_well(target=None, storage=AWS)
    done = stack.run("plan", "--diff")
    assert done.returncode == 1, done.stdout
    assert "storage needs Pulumi's plugin aws 7.51.1, and it is not installed" in done.stderr
    assert "pulumi plugin install resource aws 7.51.1" in done.stderr


def test_an_expiry_that_loses_archives_is_refused_by_a_plan(stack: Stack) -> None:
    storage = {"kind": "aws", "aws": {"bucket": "of-the-run", "expire_days": 30}}
    stack.configure_well(target=None, storage=storage, retention={"keep_monthly": 6})
    done = stack.run("plan")
    assert done.returncode == 2
    assert "expire_days is 30, and retention keeps every archive for 186 days" in done.stderr


def test_a_weak_folder_is_warned_of_by_a_preview(stack: Stack) -> None:
    stack.target.chmod(0o755)
    stack.configure_well(storage={"kind": "existing"})
    stack.pulumi("stack", "init")
    done = stack.pulumi("preview", "--color", "never")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"other users of this machine can use {stack.target}" in done.stdout
    assert f"chmod 700 {stack.target}" in done.stdout
