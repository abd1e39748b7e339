"""The documents of AwsStorage: policies of the bucket and of its roles, and its lifecycle.

Values in, values out. Actions and condition keys: Service Authorization Reference, "Actions,
resources, and condition keys for Amazon S3".
"""

from collections.abc import Sequence
from typing import Any

from components.storage.provision.options import STORAGE_CLASSES, AwsOptions

Document = dict[str, Any]

VERSION = "2012-10-17"


def bucket_policy(bucket_arn: str, kms_key_arn: str | None) -> Document:
    """Refuse requests without TLS, and objects that are encrypted with anything but the key.

    A request that names no encryption gets the bucket's default, which is the key.
    """
    objects = f"{bucket_arn}/*"
    statements = [
        {
            "Sid": "OnlyTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket_arn, objects],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]
    if kms_key_arn:
        header = "s3:x-amz-server-side-encryption"
        for sid, key, value in (
            ("OnlyKms", header, "aws:kms"),
            ("OnlyThisKey", f"{header}-aws-kms-key-id", kms_key_arn),
        ):
            statements.append(
                {
                    "Sid": sid,
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:PutObject",
                    "Resource": objects,
                    "Condition": {"Null": {key: "false"}, "StringNotEquals": {key: value}},
                }
            )
    return {"Version": VERSION, "Statement": statements}


def writer_policy(bucket_arn: str, prefix: str | None, kms_key_arn: str | None) -> Document:
    """Upload archives and see their names; neither read nor delete them.

    An upload of an existing name makes a new version, and the old one stays: the bucket is
    versioned. With a key, KMS demands Decrypt of a multipart upload (AWS Knowledge Center,
    "multipart upload with SSE-KMS"); without s3:GetObject it reads nothing.
    """
    statements = [
        _statement(
            "Upload",
            ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            _objects(bucket_arn, prefix),
        ),
        # This action knows no condition on the prefix.
        _statement(
            "FindUploads", ["s3:ListBucketMultipartUploads", "s3:GetBucketLocation"], bucket_arn
        ),
        _list(bucket_arn, prefix, ["s3:ListBucket"]),
    ]
    if kms_key_arn:
        statements.append(_statement("Key", ["kms:GenerateDataKey", "kms:Decrypt"], kms_key_arn))
    return {"Version": VERSION, "Statement": statements}


def reader_policy(bucket_arn: str, prefix: str | None, kms_key_arn: str | None) -> Document:
    """Read archives, old versions included, and change nothing."""
    statements = [
        _statement("Read", ["s3:GetObject", "s3:GetObjectVersion"], _objects(bucket_arn, prefix)),
        _statement("Locate", ["s3:GetBucketLocation"], bucket_arn),
        _list(bucket_arn, prefix, ["s3:ListBucket", "s3:ListBucketVersions"]),
    ]
    if kms_key_arn:
        statements.append(_statement("Key", ["kms:Decrypt"], kms_key_arn))
    return {"Version": VERSION, "Statement": statements}


def trust_policy(principals: Sequence[str]) -> Document:
    """Who may take a role: ARNs of identities, and services such as ec2.amazonaws.com."""
    trusted: dict[str, list[str]] = {}
    for principal in sorted(principals):
        kind = "AWS" if principal.startswith("arn:") else "Service"
        trusted.setdefault(kind, []).append(principal)
    return {
        "Version": VERSION,
        "Statement": [{"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}],
    }


def lifecycle_rules(options: AwsOptions, minimum_days: int) -> list[dict[str, Any]]:
    """The bucket's lifecycle, as arguments of aws.s3.BucketLifecycleConfiguration.

    minimum_days: how long every archive has to be kept, by `epibackup:retention`.
    """
    scope = {"prefix": f"{options.prefix}/" if options.prefix else ""}
    # With days, S3 removes the markers of deleted archives by itself, and refuses both together.
    expiration = (
        {"days": options.expire_days}
        if options.expire_days
        else {"expired_object_delete_marker": True}
    )
    rules: list[dict[str, Any]] = [
        {
            "id": "archives",
            "status": "Enabled",
            "filter": scope,
            "abort_incomplete_multipart_upload": {
                "days_after_initiation": options.abort_unfinished_days
            },
            "noncurrent_version_expiration": {
                "noncurrent_days": options.noncurrent_days(minimum_days)
            },
            "expiration": expiration,
        }
    ]
    if options.transitions:
        ordered = sorted(options.transitions, key=STORAGE_CLASSES.index)
        rules.append(
            {
                "id": "storage-classes",
                "status": "Enabled",
                "filter": scope,
                "transitions": [
                    {"days": options.transitions[name], "storage_class": name} for name in ordered
                ],
            }
        )
    return rules


def _objects(bucket_arn: str, prefix: str | None) -> str:
    return f"{bucket_arn}/{prefix}/*" if prefix else f"{bucket_arn}/*"


def _list(bucket_arn: str, prefix: str | None, actions: list[str]) -> Document:
    statement = _statement("List", actions, bucket_arn)
    if prefix:
        # The folder itself is asked for with and without a slash at its end.
        statement["Condition"] = {"StringLike": {"s3:prefix": [prefix, f"{prefix}/*"]}}
    return statement


def _statement(sid: str, actions: list[str], resource: str) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
