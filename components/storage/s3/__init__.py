"""A bucket of S3, or of a server that speaks its protocol, as a target."""

from components.storage.s3.target import S3

__all__ = ["S3"]
