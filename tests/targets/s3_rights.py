"""Credentials that may do less than the administrator's."""

import json
from collections.abc import Mapping
from typing import Any

import boto3

from lab.services.minio import Minio

WRITER = (
    *("s3:ListBucket", "s3:ListBucketMultipartUploads"),
    *("s3:PutObject", "s3:AbortMultipartUpload"),
)
READER = ("s3:ListBucket", "s3:GetObject")


def rights(minio: Minio, *allowed: str) -> dict[str, str]:
    """Temporary credentials that may do just these things, as environment variables."""
    statement = {"Effect": "Allow", "Action": list(allowed), "Resource": "arn:aws:s3:::*"}
    return session(minio, {"Version": "2012-10-17", "Statement": [statement]})


def session(minio: Minio, policy: Mapping[str, Any]) -> dict[str, str]:
    """Temporary credentials with a policy, as environment variables."""
    sts = boto3.client(
        "sts",
        endpoint_url=minio.endpoint,
        region_name="us-east-1",
        aws_access_key_id=minio.access_key,
        aws_secret_access_key=minio.secret_key,
    )
    made = sts.assume_role(
        RoleArn="arn:aws:iam::0:role/any", RoleSessionName="test", Policy=json.dumps(policy)
    )["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }
