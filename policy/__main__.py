"""The pack, as `pulumi preview --policy-pack policy` starts it; it serves until the CLI ends it."""

from pulumi_policy import PolicyPack

from policy import commands, coverage, retention, storage

PolicyPack(
    "epibackup",
    policies=[*coverage.POLICIES, *commands.POLICIES, *storage.POLICIES, *retention.POLICIES],
)
