"""Options of storage that are refused, in words, before anything is made."""

from typing import Any

import pytest

from components.errors import UsageError
from components.storage.provision.component import require_sdk
from components.storage.provision.options import StorageOptions
from program.options import Settings
from program.settings import read_settings
from program.storage import check_storage, promised_days, target_of

AWS = {"kind": "aws", "aws": {"bucket": "acme-backups"}}


def settings(storage: dict[str, Any], **others: Any) -> Settings:
    return read_settings({}, {"storage": storage, **others}, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bucket": "Acme"}, "'Acme' cannot be a bucket's name: 3 to 63"),
        ({"bucket": "a"}, "3 to 63"),
        ({"bucket": "a.dotted.name"}, "certificates would not fit"),
        ({"bucket": "-acme"}, "beginning and ending with a letter or digit"),
        ({"bucket": "xn--acme"}, "Amazon reserves"),
        ({"bucket": "acme-s3alias"}, "Amazon reserves"),
        ({"prefix": "a/*"}, "is not a folder"),
        ({"prefix": "/a"}, "is not a folder"),
        ({"kms_key_arn": "alias/mine"}, "is not a key's ARN"),
        ({"lock_mode": "governance"}, "lock_mode and lock_days belong together"),
        ({"log_bucket": "acme-backups"}, "its log would log itself"),
        ({"transitions": {"ICE": 1}}, "ICE is none of STANDARD_IA"),
        ({"transitions": {"STANDARD_IA": 10}}, "takes objects of 30 days"),
        ({"transitions": {"GLACIER": 90, "GLACIER_IR": 90}}, "GLACIER has to come later"),
        ({"transitions": {"GLACIER": 90}, "expire_days": 60}, "deleted after 60 days already"),
        ({"writer_principals": ["*"]}, "'*' is not a principal"),
        ({"writer_principals": ["arn:aws:iam::1:role/x"]}, "is not a principal"),
        ({"import_ids": {"buckt": "x"}}, "buckt is none of bucket"),
        ({"expire_day": 3}, "did you mean expire_days"),
    ],
)
def test_a_bucket_that_cannot_be_made_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings({"kind": "aws", "aws": {"bucket": "acme-backups", **options}})
    assert message in f"{caught.value.message}; {caught.value.hint}"
    assert "epibackup:storage" in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"account": "Acme"}, "3 to 24 of a-z and 0-9"),
        ({"share": "a--b"}, "single hyphens"),
        ({"quota_gib": 0}, "greater than or equal to 1"),
        ({"allowed_ip_ranges": ["10.0.0.0/8"]}, "takes public addresses"),
        ({"allowed_ip_ranges": ["203.0.113.4/32"]}, "networks up to /30"),
        ({"private_endpoint_subnet_id": "main"}, "is not a subnet's resource id"),
        ({"writer_principal_ids": ["jane"]}, "is not an object id"),
    ],
)
def test_a_share_that_cannot_be_made_is_refused(options: dict[str, Any], message: str) -> None:
    needed = {"resource_group": "backups", "account": "acme", "share": "archives"}
    with pytest.raises(UsageError) as caught:
        settings({"kind": "azure", "azure": {**needed, **options}})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"kind": "aws"}, "kind aws needs aws.bucket"),
        (
            {"kind": "azure", "azure": {"account": "acme"}},
            "kind azure needs azure.resource_group, azure.share",
        ),
        ({"kind": "directory"}, "kind directory needs directory.path"),
        ({"kind": "directory", "directory": {"path": "backups"}}, "is not an absolute path"),
        ({"kind": "directory", "directory": {"path": "/a/../etc"}}, "is not an absolute path"),
    ],
)
def test_what_a_kind_needs_is_said(storage: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(storage)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("retention", "days"),
    [
        ({}, 0),
        ({"minimum_days": 90, "keep_daily": 7}, 90),
        ({"keep_weekly": 5, "keep_daily": 7}, 35),
        ({"keep_monthly": 12}, 372),
        ({"keep_yearly": 3, "keep_last": 10}, 1098),
    ],
)
def test_what_retention_promises_is_the_least_age_of_an_expiry(
    retention: dict[str, int], days: int
) -> None:
    assert promised_days(settings({}, retention=retention).retention) == days
    if days > 1:
        aws = {"bucket": "acme-backups", "expire_days": days - 1}
        with pytest.raises(UsageError, match=f"keeps every archive for {days} days"):
            check_storage(settings({"kind": "aws", "aws": aws}, retention=retention))
    aws = {"bucket": "acme-backups", "expire_days": days + 1}
    assert check_storage(settings({"kind": "aws", "aws": aws}, retention=retention)) == []


def test_an_expiry_before_the_lock_ends_and_too_short_a_time_for_deleted_archives_are_refused() -> (
    None
):
    locked = {"bucket": "acme-backups", "lock_mode": "compliance", "lock_days": 30}
    with pytest.raises(UsageError, match="object lock keeps every archive for 30 days"):
        check_storage(settings({"kind": "aws", "aws": {**locked, "expire_days": 10}}))
    short = {"bucket": "acme-backups", "expire_noncurrent_days": 5}
    with pytest.raises(UsageError, match="gone before the 90 days"):
        check_storage(settings({"kind": "aws", "aws": short}, retention={"minimum_days": 90}))


def test_the_target_follows_from_the_storage() -> None:
    assert target_of(settings(AWS)) == "s3://acme-backups"
    azure = {"resource_group": "r", "account": "acme", "share": "archives", "folder": "prod"}
    made = settings({"kind": "azure", "azure": azure})
    assert target_of(made) == "azurefiles://acme/archives/prod"
    made = settings({"kind": "directory", "directory": {"path": "/srv/backups"}})
    assert target_of(made) == "/srv/backups"
    assert target_of(settings({})) is None


def test_archives_that_go_elsewhere_than_the_storage_are_warned_of() -> None:
    assert check_storage(settings(AWS, target="s3://acme-backups/below")) == []
    [warning] = check_storage(settings(AWS, target="/mnt/other"))
    assert "makes s3://acme-backups, and archives go to /mnt/other" in warning
    with pytest.raises(UsageError, match="needs a target"):
        check_storage(settings({"kind": "existing"}))


def test_without_its_sdk_a_kind_is_refused_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        require_sdk("aws")
    assert "pulumi-aws" in caught.value.message
    assert caught.value.hint == "pip install 'epibackup[aws]'"


def test_nothing_is_made_without_the_section() -> None:
    assert not StorageOptions().is_made
