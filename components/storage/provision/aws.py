"""A bucket for archives, as a Pulumi component."""

import json
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions

from components.errors import UsageError
from components.storage.provision.aws_policies import (
    Document,
    bucket_policy,
    lifecycle_rules,
    reader_policy,
    trust_policy,
    writer_policy,
)
from components.storage.provision.component import checked, kept, sdk, texts
from components.storage.provision.options import AwsOptions, expiry_problem


class AwsStorageArgs(TypedDict):
    """A bucket of Amazon S3, its settings, and roles for those who write and read."""

    bucket: str
    """The bucket's name."""
    prefix: NotRequired[str]
    """The folder in the bucket that archives go to; the roles can use nothing else."""
    kms_key_arn: NotRequired[Input[str]]
    """Encrypt with this key, and refuse objects with any other. Default: with keys of S3."""
    lock_mode: NotRequired[str]
    """Lock each object version: governance (can be lifted with a special right) or compliance."""
    lock_days: NotRequired[int]
    """How long a version is locked, from its upload."""
    abort_unfinished_days: NotRequired[int]
    """Remove uploads that have not been finished after this many days. Default: 7."""
    transitions: NotRequired[dict[str, int]]
    """Move archives to cheaper storage classes: class and age in days."""
    expire_days: NotRequired[int]
    """Delete archives after so many days. Default: never."""
    expire_noncurrent_days: NotRequired[int]
    """How long a deleted or overwritten archive can be brought back. Default: 30 days, or
    minimum_days if that is more."""
    minimum_days: NotRequired[int]
    """How long every archive has to be kept: no expiry may be shorter. Default: 0."""
    log_bucket: NotRequired[Input[str]]
    """A bucket that exists and gets the access log."""
    writer_principals: NotRequired[list[Input[str]]]
    """Who may take the writer's role: ARNs, or services such as ec2.amazonaws.com."""
    reader_principals: NotRequired[list[Input[str]]]
    """Who may take the reader's role."""
    protect: NotRequired[bool]
    """Refuse a destroy, and any change that would replace the bucket. Default: true."""
    retain_on_delete: NotRequired[bool]
    """Leave bucket and settings as they are when they are taken out of the program. Default:
    true."""
    import_ids: NotRequired[dict[str, str]]
    """Parts that exist and are taken over instead of made, with their ids."""


class AwsStorage(pulumi.ComponentResource):
    """A private, versioned, encrypted bucket that only answers over TLS, with a policy for a
    writer that can neither read nor delete, and one for a reader.

    A role is made for each of them that has principals; keys are never made.
    """

    location: Output[str]
    """The target: s3://bucket/prefix."""
    bucket_arn: Output[str]
    """The bucket's ARN."""
    writer_policy_arn: Output[str]
    """The IAM policy that lets a writer upload."""
    reader_policy_arn: Output[str]
    """The IAM policy that lets a reader read."""
    writer_role_arn: Output[str]
    """The writer's role; empty without writer_principals."""
    reader_role_arn: Output[str]
    """The reader's role; empty without reader_principals."""

    def __init__(
        self, name: str, args: AwsStorageArgs, opts: ResourceOptions | None = None
    ) -> None:
        minimum_days = int(args.get("minimum_days", 0))
        plain = {key: value for key, value in args.items() if key != "minimum_days"}
        options = checked(AwsOptions, "AwsStorage", plain, ["bucket"])
        if problem := expiry_problem(options, minimum_days):
            raise UsageError(f"AwsStorage: {problem}", "raise it, or leave it out")
        s3 = sdk("aws", "s3")
        super().__init__("epibackup:index:AwsStorage", name, {}, opts)
        self._s3 = s3
        self._args = args
        bucket = self._bucket(options)
        self._settings(bucket, options, lifecycle_rules(options, minimum_days))
        key = Output.from_input(args.get("kms_key_arn"))
        self.location = Output.from_input(options.target())
        self.bucket_arn = bucket.arn
        self.writer_policy_arn, self.writer_role_arn = self._identity(
            "writer",
            Output.all(bucket.arn, key).apply(
                lambda known: writer_policy(known[0], options.prefix, known[1])
            ),
            args.get("writer_principals"),
        )
        self.reader_policy_arn, self.reader_role_arn = self._identity(
            "reader",
            Output.all(bucket.arn, key).apply(
                lambda known: reader_policy(known[0], options.prefix, known[1])
            ),
            args.get("reader_principals"),
        )
        self.register_outputs(
            {
                "location": self.location,
                "bucket_arn": self.bucket_arn,
                "writer_policy_arn": self.writer_policy_arn,
                "reader_policy_arn": self.reader_policy_arn,
                "writer_role_arn": self.writer_role_arn,
                "reader_role_arn": self.reader_role_arn,
            }
        )

    def _bucket(self, options: AwsOptions) -> Any:
        return self._s3.Bucket(
            f"{self._name}-bucket",
            bucket=options.bucket,
            object_lock_enabled=True if options.lock_mode else None,
            # An imported bucket keeps the tags that others have given it.
            opts=kept(self, "bucket", self._args, ignore_changes=["tags", "tagsAll"]),
        )

    def _settings(self, bucket: Any, options: AwsOptions, rules: list[dict[str, Any]]) -> None:
        """The bucket's settings. One after the other: S3 refuses changes of a bucket's policy
        and access block that happen at the same time (409 OperationAborted)."""
        s3 = self._s3

        def make(kind: Any, part: str, after: Sequence[pulumi.Resource], **inputs: Any) -> Any:
            return kind(
                f"{self._name}-{part}",
                bucket=bucket.bucket,
                opts=kept(self, part, self._args, depends_on=after),
                **inputs,
            )

        versioning = make(
            s3.BucketVersioning, "versioning", [], versioning_configuration={"status": "Enabled"}
        )
        ownership = make(
            s3.BucketOwnershipControls,
            "ownership",
            [],
            rule={"object_ownership": "BucketOwnerEnforced"},
        )
        blocked = make(
            s3.BucketPublicAccessBlock,
            "public-access",
            [ownership],
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
        )
        key = self._args.get("kms_key_arn")
        default = (
            {"sse_algorithm": "aws:kms", "kms_master_key_id": key}
            if key is not None
            else {"sse_algorithm": "AES256"}
        )
        make(
            s3.BucketServerSideEncryptionConfiguration,
            "encryption",
            [],
            rules=[
                {
                    "apply_server_side_encryption_by_default": default,
                    "bucket_key_enabled": key is not None,
                }
            ],
        )
        make(
            s3.BucketPolicy,
            "policy",
            [blocked],
            policy=_json(
                Output.all(bucket.arn, Output.from_input(key)).apply(
                    lambda known: bucket_policy(known[0], known[1])
                )
            ),
        )
        make(s3.BucketLifecycleConfiguration, "lifecycle", [versioning], rules=rules)
        if options.lock_mode:
            make(
                s3.BucketObjectLockConfiguration,
                "lock",
                [versioning],
                rule={
                    "default_retention": {
                        "mode": options.lock_mode.upper(),
                        "days": options.lock_days,
                    }
                },
            )
        if (log_bucket := self._args.get("log_bucket")) is not None:
            make(
                s3.BucketLogging,
                "logging",
                [],
                target_bucket=log_bucket,
                target_prefix=f"{options.bucket}/",
            )

    def _identity(
        self, who: str, document: Output[Document], principals: list[Input[str]] | None
    ) -> tuple[Output[str], Output[str]]:
        """A policy, and a role with it for the principals: their ARNs, empty for no role."""
        iam = sdk("aws", "iam")
        child = ResourceOptions(parent=self)
        policy = iam.Policy(
            f"{self._name}-{who}",
            description=f"epibackup: the {who} of archives",
            policy=_json(document),
            opts=child,
        )
        if not principals:
            return policy.arn, Output.from_input("")
        role = iam.Role(
            f"{self._name}-{who}",
            description=f"epibackup: the {who} of archives",
            assume_role_policy=_json(texts(principals).apply(trust_policy)),
            opts=child,
        )
        iam.RolePolicyAttachment(
            f"{self._name}-{who}", role=role.name, policy_arn=policy.arn, opts=child
        )
        return policy.arn, role.arn


def _json(document: Output[Document]) -> Output[str]:
    return document.apply(lambda made: json.dumps(made, sort_keys=True))
