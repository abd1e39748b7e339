"""Storage policies, through the real engine and with the real SDKs of the clouds."""

import json

import pytest
from pulumi.automation.events import EngineEvent

from program.gate import check_steps, storage_changes
from program.preview import Preview, Seen
from tests.engine.support.projects import Run
from tests.policy.conftest import Gated, violations

AWS = """
import json
import pulumi
from pulumi import Output, ResourceOptions
from pulumi_aws import s3
bucket = s3.Bucket("archives", bucket="archives-of-ours", opts=ResourceOptions(protect=True))
access = s3.BucketPublicAccessBlock("access", bucket=bucket.bucket, block_public_acls=True,
    block_public_policy=True, ignore_public_acls=True, restrict_public_buckets=True)
encryption = s3.BucketServerSideEncryptionConfiguration("encryption", bucket=bucket.id,
    rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}])
versioning = s3.BucketVersioning("versioning", bucket=bucket.id,
    versioning_configuration={"status": "Enabled"})
policy = s3.BucketPolicy("tls", bucket="archives-of-ours", policy=json.dumps({"Statement": [
    {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*",
     "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}))
lifecycle = s3.BucketLifecycleConfiguration("lifecycle", bucket=bucket.id, rules=[
    {"id": "old", "status": "Enabled", "expiration": {"days": 400}}])
"""

AZURE = """
import pulumi
from pulumi import ResourceOptions
from pulumi_azure_native import storage
keep = ResourceOptions(protect=True)
account = storage.StorageAccount("account", account_name="archivesofours", location="westeurope",
    resource_group_name="ours", kind="StorageV2", sku={"name": "Standard_ZRS"},
    allow_blob_public_access=False, enable_https_traffic_only=True, minimum_tls_version="TLS1_2",
    opts=keep)
service = storage.FileServiceProperties("service", account_name=account.name,
    resource_group_name="ours", file_services_name="default",
    share_delete_retention_policy={"enabled": True, "days": 14})
share = storage.FileShare("share", account_name=account.name, resource_group_name="ours", opts=keep)
"""


@pytest.mark.parametrize("program", [AWS, AZURE], ids=["aws", "azure"])
def test_storage_that_is_made_well_passes(gated: Gated, program: str) -> None:
    run = gated.preview(program).succeeded()
    assert violations(run) == {}
    # Nothing was left undecided either.
    assert "can't run policy" not in run.text


PROVISIONED = """
from components.storage.provision.{module} import {component}
{component}("storage", {args!r})
"""


@pytest.mark.parametrize(
    ("module", "component", "args"),
    [
        ("aws", "AwsStorage", {"bucket": "archives-of-ours", "expire_days": 400}),
        (
            "azure",
            "AzureStorage",
            {"resource_group": "ours", "account": "archivesofours", "share": "archives"},
        ),
    ],
)
def test_what_epibackup_itself_makes_passes(
    gated: Gated, module: str, component: str, args: dict[str, object]
) -> None:
    program = PROVISIONED.format(module=module, component=component, args=args)
    assert violations(gated.preview(program).succeeded()) == {}
    unprotected = PROVISIONED.format(
        module=module, component=component, args={**args, "protect": False}
    )
    assert set(violations(gated.preview(unprotected).failed())) == {"storage-protected"}


@pytest.mark.parametrize(
    ("policy", "was", "now", "message"),
    [
        ("storage-private", "block_public_policy=True", "block_public_policy=False",
         "leaves blockPublicPolicy off"),
        ("storage-private", "bucket=bucket.bucket, block", "bucket='another', block",
         "The bucket archives has no public access block"),
        ("storage-private", '"Effect": "Deny"', '"Effect": "Allow"', "allows everybody"),
        ("storage-encrypted", '"AES256"', '"none"', "how it encrypts"),
        ("storage-encrypted", '"aws:SecureTransport": "false"', '"aws:SecureTransport": "true"',
         "without TLS"),
        ("storage-versioned", '"Enabled"})', '"Suspended"})', "keeps no versions"),
        ("storage-protected", "protect=True", "protect=False", "is not protected"),
        ("lifecycle-minimum", '{"days": 400}', '{"days": 6}', "after 6 days"),
    ],
)  # fmt: skip
def test_a_weakened_bucket_is_refused(
    gated: Gated, policy: str, was: str, now: str, message: str
) -> None:
    assert AWS.count(was) == 1
    run = gated.preview(AWS.replace(was, now), {"lifecycle-minimum": {"leastDays": 7}}).failed()
    assert run.code == 1
    (said, *_) = violations(run)[policy]
    assert message in said


@pytest.mark.parametrize(
    ("policy", "was", "now", "message"),
    [
        ("storage-private", "allow_blob_public_access=False", "allow_blob_public_access=True",
         "public access to blobs"),
        ("storage-private", "allow_blob_public_access=False,", "", "public access to blobs"),
        ("storage-encrypted", "enable_https_traffic_only=True", "enable_https_traffic_only=False",
         "without TLS"),
        ("storage-encrypted", "TLS1_2", "TLS1_0", "old versions of TLS"),
        ("storage-versioned", '"days": 14', '"days": 3', "deleted shares for 7 days"),
        ("storage-protected", "protect=True", "protect=False", "is not protected"),
    ],
)  # fmt: skip
def test_a_weakened_storage_account_is_refused(
    gated: Gated, policy: str, was: str, now: str, message: str
) -> None:
    assert AZURE.count(was) == 1
    run = gated.preview(AZURE.replace(was, now)).failed()
    (said, *_) = violations(run)[policy]
    assert message in said


def test_a_policy_whose_level_is_lowered_only_warns(gated: Gated) -> None:
    weak = AWS.replace("protect=True", "protect=False")
    run = gated.preview(weak, {"storage-protected": "advisory"}).succeeded()
    assert "is not protected" in run.text


def previewed(run: Run) -> Preview:
    """A preview as the gate sees it."""
    seen = Seen()
    for event in run.events:
        seen.see(EngineEvent.from_json(event))
    return seen.preview()


def test_the_removal_of_storage_is_refused_though_no_policy_sees_it(gated: Gated) -> None:
    unprotected = AWS.replace("protect=True", "protect=False")
    gated.project.write(unprotected)
    gated.project.up().succeeded()

    gated.project.write("import pulumi\n")
    gone = previewed(gated.project.preview().succeeded())
    assert [found.policy for found in check_steps(gone)] == ["no-storage-removal"]
    assert "archives (aws:s3/bucket:Bucket) would be deleted" in check_steps(gone)[0].message
    assert "delete BucketVersioning versioning" in storage_changes(gone)

    gated.project.write(unprotected.replace("archives-of-ours", "another"))
    replaced = previewed(gated.project.preview().succeeded())
    assert "would be replaced" in check_steps(replaced)[0].message

    gated.project.write(unprotected.replace('"days": 400', '"days": 300'))
    changed = previewed(gated.project.preview().succeeded())
    assert check_steps(changed) == []
    assert storage_changes(changed) == ["update BucketLifecycleConfiguration lifecycle: rules"]


def test_the_engine_itself_refuses_to_remove_what_is_protected(gated: Gated) -> None:
    gated.project.write(AWS)
    gated.project.up().succeeded()
    gated.project.write("import pulumi\n")
    run = gated.project.preview().failed()
    found = [item for item in check_steps(previewed(run)) if not item.resource]
    assert found
    assert "protected" in found[0].message


def test_what_a_policy_cannot_know_yet_is_said_and_not_taken_for_good(gated: Gated) -> None:
    program = AWS.replace('{"days": 400}', '{"days": bucket.arn.apply(len)}')
    run = gated.preview(program)
    assert "lifecycle-minimum" in run.text
    assert "can't be known during preview" in run.text


@pytest.mark.parametrize("text", ["create", "update", "delete"])
def test_a_secret_that_became_part_of_a_command_is_refused(gated: Gated, text: str) -> None:
    program = (
        "import pulumi\nfrom pulumi_command import local\n"
        f"local.Command('c', {text}=pulumi.Output.secret('open sesame').apply('echo {{}}'.format),"
        " stdin=pulumi.Output.secret('here it may be'))\n"
    )
    gated.project.write(program)
    found = check_steps(previewed(gated.project.preview().succeeded()))
    assert [(item.policy, item.resource) for item in found] == [("no-secret-in-command", "c")]
    assert f"`{text}`" in found[0].message
    assert "sesame" not in json.dumps([vars(item) for item in found])
