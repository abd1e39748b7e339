"""One model of all options: it checks them, and makes the sample and the reference page."""

import re
from pathlib import Path

import pytest
import yaml

from components.errors import UsageError
from program import reference
from program.settings import read_settings

ROOT = Path(__file__).parents[2]


def read(config: dict[str, object]) -> None:
    read_settings(config, {}, "stacks/Pulumi.nightly.yaml")


def test_the_committed_sample_is_the_generated_one() -> None:
    assert (ROOT / "stacks/Pulumi.sample.yaml").read_text() == reference.sample()


def test_the_committed_reference_page_is_the_generated_one() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == reference.reference()


def test_the_committed_manifest_schema_is_the_generated_one() -> None:
    assert (ROOT / "docs/manifest.schema.json").read_text() == reference.manifest_schema()


def test_every_example_of_the_sample_is_a_good_configuration() -> None:
    lines = reference.sample().splitlines()
    # An option has its # directly before it; a description has a space after the #.
    options = [
        line.replace("#", "", 1)
        for line in lines
        if line.startswith("  #") and not re.match(r"  # \S|  #  #", line)
    ]
    document = yaml.safe_load("config:\n" + "\n".join(options))
    settings = read_settings(document["config"], {}, "sample")
    assert settings.target == "/mnt/backups"
    assert settings.compression.method == "gzip"
    assert settings.of_service("postgresql").format == "directory"


def test_values_as_pulumi_hands_them_over_are_understood() -> None:
    settings = read_settings(
        {
            "epibackup:services": '["postgresql"]',
            "epibackup:parallel_transfers": "2",
            "epibackup:ssh": '{"agent": true}',
            "other:thing": "ignored",
        },
        {},
        "test",
    )
    assert settings.services == ["postgresql"]
    assert settings.parallel_transfers == 2
    assert settings.ssh.agent


def test_flags_win_over_the_stack_and_absent_flags_do_not() -> None:
    config = {"epibackup:target": "/stack", "epibackup:build": "/build"}
    settings = read_settings(config, {"target": "/flag", "build": None}, "test")
    assert (settings.target, settings.build) == ("/flag", "/build")


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({"epibackup:targte": "/x"}, "unknown option epibackup:targte", "did you mean target?"),
        (
            {"epibackup:postgresql": {"formt": "custom"}},
            "unknown option epibackup:postgresql.formt",
            "did you mean format?",
        ),
        ({"epibackup:haproxy": {"x": 1}}, "unknown option epibackup:haproxy.x", ""),
        ({"epibackup:retention": {"keep_last": 0}}, "would remove every archive but", "keep_last"),
        ({"epibackup:retention": '{"keep_dayly": 7}'}, "retention.keep_dayly", "keep_daily"),
        ({"epibackup:format": "rar"}, "epibackup:format: Input should be 'zip' or 'tar.gz'", "rar"),
        ({"epibackup:services": "[postgresql"}, "epibackup:services", "[postgresql"),
        ({"epibackup:parallel_transfers": "many"}, "valid integer", "many"),
        ({"epibackup:host_directory": "tmp; rm -rf /"}, "epibackup:host_directory", ""),
    ],
)
def test_a_wrong_option_is_named_with_its_file_and_what_to_write(
    config: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(config)
    assert "stacks/Pulumi.nightly.yaml" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        read({"epibackup:one": "1", "epibackup:two": "2"})
    assert "epibackup:one" in caught.value.message
    assert "epibackup:two" in caught.value.message
