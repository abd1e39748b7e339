"""`pulumi-resource-aws`: the types that AwsStorage uses, on a server that speaks S3 and IAM.

Server and credentials are those of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …). The
ids are those of Pulumi's own plugin: a bucket's name for all that belongs to it, an ARN for a
policy. It knows no tags, regions and waiting.
"""

import os
from typing import Any, ClassVar

import boto3

from tests.storage.doubles.iam import Attachment, Policy, Role
from tests.storage.doubles.provider import Kind, Values, run, same_json
from tests.storage.doubles.remembered import Remembered
from tests.storage.doubles.server import asked, present

VERSION = "7.51.1"


class Bucket(Kind):
    """aws:s3/bucket:Bucket"""

    replaced_by = ("bucket", "objectLockEnabled")
    named = "bucket"
    computed = ("arn",)

    def create(self, inputs: Values) -> str:
        name = str(inputs["bucket"])
        lock = bool(inputs.get("objectLockEnabled"))
        boto3.client("s3").create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
        return name

    def read(self, resource_id: str) -> Values | None:
        client = boto3.client("s3")
        if asked(client.head_bucket, Bucket=resource_id) is None:
            return None
        lock = asked(client.get_object_lock_configuration, Bucket=resource_id)
        enabled = bool(lock and "ObjectLockConfiguration" in lock)
        return {
            "bucket": resource_id,
            "arn": f"arn:aws:s3:::{resource_id}",
            **present(objectLockEnabled=enabled or None),
        }

    def update(self, resource_id: str, inputs: Values) -> None:
        """All that could change replaces it."""

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_bucket(Bucket=resource_id)


class BucketSetting(Kind):
    """What has the bucket's name as its id, and is put as a whole."""

    replaced_by = ("bucket",)

    def create(self, inputs: Values) -> str:
        name = str(inputs["bucket"])
        self.put(name, inputs)
        return name

    def update(self, resource_id: str, inputs: Values) -> None:
        self.put(resource_id, inputs)

    def read(self, resource_id: str) -> Values | None:
        found = self.get(resource_id)
        return None if found is None else {"bucket": resource_id, **found}

    def put(self, bucket: str, inputs: Values) -> None:
        """Write it."""
        raise NotImplementedError

    def get(self, bucket: str) -> Values | None:
        """Read it; None if the bucket has none."""
        raise NotImplementedError


class Versioning(BucketSetting):
    """aws:s3/bucketVersioning:BucketVersioning"""

    def put(self, bucket: str, inputs: Values) -> None:
        status = inputs["versioningConfiguration"]["status"]
        boto3.client("s3").put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": status}
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_versioning, Bucket=bucket)
        if found is None:
            return None
        return {"versioningConfiguration": {"status": found.get("Status", "Disabled")}}

    def delete(self, resource_id: str) -> None:
        self.put(resource_id, {"versioningConfiguration": {"status": "Suspended"}})


class Ownership(BucketSetting):
    """aws:s3/bucketOwnershipControls:BucketOwnershipControls"""

    def put(self, bucket: str, inputs: Values) -> None:
        rule = {"ObjectOwnership": inputs["rule"]["objectOwnership"]}
        boto3.client("s3").put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls={"Rules": [rule]}
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_ownership_controls, Bucket=bucket)
        if found is None:
            return None
        rule = found["OwnershipControls"]["Rules"][0]
        return {"rule": {"objectOwnership": rule["ObjectOwnership"]}}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_bucket_ownership_controls(Bucket=resource_id)


class PublicAccess(BucketSetting):
    """aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"""

    NAMES: ClassVar[dict[str, str]] = {
        "blockPublicAcls": "BlockPublicAcls",
        "blockPublicPolicy": "BlockPublicPolicy",
        "ignorePublicAcls": "IgnorePublicAcls",
        "restrictPublicBuckets": "RestrictPublicBuckets",
    }

    def put(self, bucket: str, inputs: Values) -> None:
        block = {theirs: bool(inputs.get(ours)) for ours, theirs in self.NAMES.items()}
        boto3.client("s3").put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=block
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_public_access_block, Bucket=bucket)
        if found is None:
            return None
        block = found["PublicAccessBlockConfiguration"]
        return {ours: block[theirs] for ours, theirs in self.NAMES.items()}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_public_access_block(Bucket=resource_id)


class Encryption(BucketSetting):
    """aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"""

    def put(self, bucket: str, inputs: Values) -> None:
        rules = []
        for rule in inputs["rules"]:
            default = rule["applyServerSideEncryptionByDefault"]
            names = present(
                SSEAlgorithm=default["sseAlgorithm"], KMSMasterKeyID=default.get("kmsMasterKeyId")
            )
            rules.append(
                {
                    "ApplyServerSideEncryptionByDefault": names,
                    "BucketKeyEnabled": bool(rule.get("bucketKeyEnabled")),
                }
            )
        boto3.client("s3").put_bucket_encryption(
            Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules}
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_encryption, Bucket=bucket)
        if found is None:
            return None
        rules = []
        for rule in found["ServerSideEncryptionConfiguration"]["Rules"]:
            default = rule["ApplyServerSideEncryptionByDefault"]
            names = present(
                sseAlgorithm=default["SSEAlgorithm"], kmsMasterKeyId=default.get("KMSMasterKeyID")
            )
            rules.append(
                {
                    "applyServerSideEncryptionByDefault": names,
                    "bucketKeyEnabled": rule.get("BucketKeyEnabled", False),
                }
            )
        return {"rules": rules}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_bucket_encryption(Bucket=resource_id)


class BucketPolicy(BucketSetting):
    """aws:s3/bucketPolicy:BucketPolicy"""

    def put(self, bucket: str, inputs: Values) -> None:
        boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=inputs["policy"])

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_policy, Bucket=bucket)
        return None if found is None else {"policy": same_json(found["Policy"])}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_bucket_policy(Bucket=resource_id)


class Lifecycle(BucketSetting):
    """aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"""

    NAMES: ClassVar[dict[str, str]] = {
        "id": "ID",
        "status": "Status",
        "filter": "Filter",
        "prefix": "Prefix",
        "abortIncompleteMultipartUpload": "AbortIncompleteMultipartUpload",
        "daysAfterInitiation": "DaysAfterInitiation",
        "noncurrentVersionExpiration": "NoncurrentVersionExpiration",
        "noncurrentDays": "NoncurrentDays",
        "expiration": "Expiration",
        "days": "Days",
        "expiredObjectDeleteMarker": "ExpiredObjectDeleteMarker",
        "transitions": "Transitions",
        "storageClass": "StorageClass",
    }

    def put(self, bucket: str, inputs: Values) -> None:
        boto3.client("s3").put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={"Rules": _renamed(inputs["rules"], self.NAMES)},
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_lifecycle_configuration, Bucket=bucket)
        if found is None:
            return None
        back = {theirs: ours for ours, theirs in self.NAMES.items()}
        return {"rules": _renamed(found["Rules"], back)}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").delete_bucket_lifecycle(Bucket=resource_id)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names[name]: _renamed(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return int(value) if isinstance(value, float) else value


class Lock(BucketSetting):
    """aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"""

    def put(self, bucket: str, inputs: Values) -> None:
        retention = inputs["rule"]["defaultRetention"]
        rule = {"Mode": retention["mode"], "Days": int(retention["days"])}
        boto3.client("s3").put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": rule},
            },
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_object_lock_configuration, Bucket=bucket)
        if not found or "Rule" not in found["ObjectLockConfiguration"]:
            return None
        retention = found["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
        return {
            "rule": {"defaultRetention": {"mode": retention["Mode"], "days": retention["Days"]}}
        }

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").put_object_lock_configuration(
            Bucket=resource_id, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        )


class Logging(BucketSetting):
    """aws:s3/bucketLogging:BucketLogging"""

    def put(self, bucket: str, inputs: Values) -> None:
        target = {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
        boto3.client("s3").put_bucket_logging(
            Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": target}
        )

    def get(self, bucket: str) -> Values | None:
        found = asked(boto3.client("s3").get_bucket_logging, Bucket=bucket)
        if not found or "LoggingEnabled" not in found:
            return None
        enabled = found["LoggingEnabled"]
        return {"targetBucket": enabled["TargetBucket"], "targetPrefix": enabled["TargetPrefix"]}

    def delete(self, resource_id: str) -> None:
        boto3.client("s3").put_bucket_logging(Bucket=resource_id, BucketLoggingStatus={})


KINDS: dict[str, Kind] = {
    "aws:s3/bucket:Bucket": Bucket(),
    "aws:s3/bucketVersioning:BucketVersioning": Versioning(),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": Ownership(),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": PublicAccess(),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        Encryption()
    ),
    "aws:s3/bucketPolicy:BucketPolicy": BucketPolicy(),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": Lifecycle(),
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": Lock(),
    "aws:s3/bucketLogging:BucketLogging": Logging(),
    "aws:iam/policy:Policy": Policy(),
    "aws:iam/role:Role": Role(),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Attachment(),
}


def main() -> None:
    """The executable. With EPIBACKUP_TEST_REMEMBERED (a file) the server is a MinIO, which has
    neither public access blocks nor ownership nor this kind of IAM."""
    kinds = KINDS
    if path := os.environ.get("EPIBACKUP_TEST_REMEMBERED"):
        lacking = (PublicAccess, Ownership, Policy)
        kinds = {
            token: Remembered(kind, path) if isinstance(kind, lacking) else kind
            for token, kind in KINDS.items()
        }
    run(kinds, VERSION)
