"""A bucket made by Pulumi: real SDK and engine, a double of the provider, a server with S3."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.engine.support.projects import Project
from tests.storage.conftest import Storage

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CONTROLLER = "arn:aws:iam::111122223333:role/backup-controller"


@pytest.fixture
def storage(storage_project: Project) -> Storage:
    return Storage(storage_project, "components.storage.provision.aws", "AwsStorage")


def policy_of(arn: str) -> dict[str, Any]:
    """The statements of an IAM policy, by their names."""
    iam = boto3.Session().client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
    document: Any = found["Document"]
    return {statement["Sid"]: statement for statement in document["Statement"]}


def test_a_bucket_is_private_versioned_encrypted_and_made_once(storage: Storage, s3: Any) -> None:
    args = {"bucket": "made-once"}
    storage.up(args).succeeded()
    block = s3.get_public_access_block(Bucket="made-once")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    assert s3.get_bucket_versioning(Bucket="made-once")["Status"] == "Enabled"
    rules = s3.get_bucket_encryption(Bucket="made-once")["ServerSideEncryptionConfiguration"]
    default = rules["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert default == {"SSEAlgorithm": "AES256"}
    owner = s3.get_bucket_ownership_controls(Bucket="made-once")["OwnershipControls"]
    assert owner["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    policy = json.loads(s3.get_bucket_policy(Bucket="made-once")["Policy"])
    assert policy["Statement"] == [
        {
            "Sid": "OnlyTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": ["arn:aws:s3:::made-once", "arn:aws:s3:::made-once/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]
    found = s3.get_bucket_lifecycle_configuration(Bucket="made-once")["Rules"]
    lifecycle = {rule["ID"]: rule for rule in found}
    assert lifecycle["archives"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert lifecycle["archives"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert "Days" not in lifecycle["archives"]["Expiration"]
    assert storage.project.exports()["location"] == "s3://made-once"

    storage.up(args, "--expect-no-changes").succeeded()
    storage.drift().succeeded()


def test_what_is_asked_for_is_made_and_nothing_else(storage: Storage, s3: Any) -> None:
    s3.create_bucket(Bucket="access-logs")
    allow = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::access-logs/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    s3.put_bucket_policy(Bucket="access-logs", Policy=policy)
    args = {
        "bucket": "with-all",
        "prefix": "production",
        "kms_key_arn": KEY,
        "lock_mode": "compliance",
        "lock_days": 30,
        "transitions": {"DEEP_ARCHIVE": 180, "GLACIER_IR": 30},
        "expire_days": 400,
        "expire_noncurrent_days": 90,
        "minimum_days": 60,
        "log_bucket": "access-logs",
        "writer_principals": [CONTROLLER, "ec2.amazonaws.com"],
        "reader_principals": ["arn:aws:iam::111122223333:role/operators"],
    }
    storage.up(args).succeeded()
    lock = s3.get_object_lock_configuration(Bucket="with-all")["ObjectLockConfiguration"]
    retention = lock["Rule"]["DefaultRetention"]
    assert (retention["Mode"], retention["Days"]) == ("COMPLIANCE", 30)
    rules = s3.get_bucket_encryption(Bucket="with-all")["ServerSideEncryptionConfiguration"]
    default = rules["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert default == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    policy = json.loads(s3.get_bucket_policy(Bucket="with-all")["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == [
        "OnlyTls",
        "OnlyKms",
        "OnlyThisKey",
    ]
    logging = s3.get_bucket_logging(Bucket="with-all")["LoggingEnabled"]
    assert (logging["TargetBucket"], logging["TargetPrefix"]) == ("access-logs", "with-all/")
    found = s3.get_bucket_lifecycle_configuration(Bucket="with-all")["Rules"]
    lifecycle = {rule["ID"]: rule for rule in found}
    assert {rule["Filter"]["Prefix"] for rule in found} == {"production/"}
    assert lifecycle["archives"]["Expiration"] == {"Days": 400}
    assert lifecycle["archives"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    moves = lifecycle["storage-classes"]["Transitions"]
    assert [(move["Days"], move["StorageClass"]) for move in moves] == [
        (30, "GLACIER_IR"),
        (180, "DEEP_ARCHIVE"),
    ]
    storage.up(args, "--expect-no-changes").succeeded()


def test_the_writer_may_upload_and_the_reader_read_and_no_key_is_made(storage: Storage) -> None:
    principals = {"writer_principals": [CONTROLLER], "reader_principals": ["ec2.amazonaws.com"]}
    storage.up({"bucket": "identities", "prefix": "prod", **principals}).succeeded()
    exports = storage.project.exports()
    assert exports["location"] == "s3://identities/prod"
    writer = policy_of(exports["writer_policy_arn"])
    actions = {action for statement in writer.values() for action in statement["Action"]}
    assert actions == {
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:ListBucketMultipartUploads",
        "s3:GetBucketLocation",
        "s3:ListBucket",
    }
    assert writer["Upload"]["Resource"] == "arn:aws:s3:::identities/prod/*"
    assert writer["List"]["Condition"] == {"StringLike": {"s3:prefix": ["prod", "prod/*"]}}
    reader = policy_of(exports["reader_policy_arn"])
    assert reader["Read"]["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert not any("Put" in str(one) or "Delete" in str(one) for one in reader.values())
    iam = boto3.Session().client("iam")
    for who, trusted in (
        ("writer", {"AWS": [CONTROLLER]}),
        ("reader", {"Service": ["ec2.amazonaws.com"]}),
    ):
        name = exports[f"{who}_role_arn"].rpartition("/")[2]
        role: Any = iam.get_role(RoleName=name)["Role"]
        assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == trusted
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        assert [item["PolicyArn"] for item in attached] == [exports[f"{who}_policy_arn"]]
    types = {resource["type"] for resource in storage.project.resources()}
    assert not any("accessKey" in kind or "iam/user" in kind for kind in types)


def test_a_change_of_the_lifecycle_changes_nothing_else(storage: Storage, s3: Any) -> None:
    storage.up({"bucket": "changing"}).succeeded()
    run = storage.up({"bucket": "changing", "abort_unfinished_days": 3}).succeeded()
    changed = {name: op for name, op in run.operations().items() if op != "same"}
    assert changed == {"storage-lifecycle": "update"}
    rules = s3.get_bucket_lifecycle_configuration(Bucket="changing")["Rules"]
    assert rules[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}


def test_drift_is_seen_without_changing_anything_and_is_repaired(storage: Storage, s3: Any) -> None:
    args = {"bucket": "drifting"}
    storage.up(args).succeeded()
    s3.put_bucket_versioning(Bucket="drifting", VersioningConfiguration={"Status": "Suspended"})
    s3.delete_public_access_block(Bucket="drifting")
    before = storage.project.state_text()
    run = storage.drift().failed()
    assert run.code == 7
    assert "storage-versioning" in run.text
    assert "storage-public-access" in run.text
    assert storage.project.state_text() == before
    # Without a refresh, Pulumi compares the program with its own state only.
    storage.up(args, "--expect-no-changes").succeeded()

    storage.up(args, "--refresh").succeeded()
    assert s3.get_bucket_versioning(Bucket="drifting")["Status"] == "Enabled"
    block = s3.get_public_access_block(Bucket="drifting")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    storage.drift().succeeded()


def test_a_destroy_is_refused_and_harms_nothing(storage: Storage, s3: Any) -> None:
    storage.up({"bucket": "protected"}).succeeded()
    run = storage.project.destroy().failed()
    assert "protected" in run.text
    s3.head_bucket(Bucket="protected")
    assert s3.get_bucket_versioning(Bucket="protected")["Status"] == "Enabled"
    assert s3.get_bucket_policy(Bucket="protected")["Policy"]
    storage.drift().succeeded()


def test_what_is_no_longer_protected_stays_with_its_settings_unless_that_is_asked_for(
    storage: Storage, s3: Any
) -> None:
    storage.up({"bucket": "kept", "protect": False}).succeeded()
    storage.project.destroy().succeeded()
    assert s3.get_bucket_versioning(Bucket="kept")["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket="kept")

    storage.up({"bucket": "let-go", "protect": False, "retain_on_delete": False}).succeeded()
    storage.project.destroy().succeeded()
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket="let-go")


def test_another_name_would_replace_the_bucket_and_is_refused(storage: Storage, s3: Any) -> None:
    storage.up({"bucket": "old-name"}).succeeded()
    run = storage.up({"bucket": "new-name"}).failed()
    assert "protect" in run.text
    s3.head_bucket(Bucket="old-name")


def test_a_bucket_that_exists_is_taken_over_with_what_is_in_it(storage: Storage, s3: Any) -> None:
    s3.create_bucket(Bucket="was-there")
    s3.put_bucket_tagging(
        Bucket="was-there", Tagging={"TagSet": [{"Key": "owner", "Value": "operations"}]}
    )
    s3.put_object(Bucket="was-there", Key="old.zip", Body=b"old")
    args = {"bucket": "was-there", "import_ids": {"bucket": "was-there"}}
    run = storage.up(args).succeeded()
    assert run.operations()["storage-bucket"] == "import"
    # Its content cannot be read here: this server knows no conditions, and takes the policy's
    # refusal of requests without TLS for one of all requests.
    [found] = s3.list_object_versions(Bucket="was-there")["Versions"]
    assert (found["Key"], found["Size"]) == ("old.zip", 3)
    assert s3.get_bucket_tagging(Bucket="was-there")["TagSet"]
    assert s3.get_bucket_versioning(Bucket="was-there")["Status"] == "Enabled"
    # The option may stay, and may go.
    storage.up(args, "--expect-no-changes").succeeded()
    storage.up({"bucket": "was-there"}, "--expect-no-changes").succeeded()


def test_a_preview_shows_the_bucket_and_makes_none(storage: Storage, s3: Any) -> None:
    storage.set({"bucket": "not-yet", "writer_principals": [CONTROLLER]})
    run = storage.project.preview().succeeded()
    assert run.operations()["storage-bucket"] == "create"
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket="not-yet")


def test_arguments_that_would_lose_archives_stop_the_program_in_words(storage: Storage) -> None:
    run = storage.up({"bucket": "too-short", "expire_days": 30, "minimum_days": 90}).failed()
    assert "expire_days is 30, and retention keeps every archive for 90 days" in run.text
    assert not any("aws:" in resource["type"] for resource in storage.project.resources())
