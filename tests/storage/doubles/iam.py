"""The types of IAM that AwsStorage uses."""

import json
from typing import Any

import boto3

from tests.storage.doubles.provider import Kind, Values, same_json
from tests.storage.doubles.server import asked, present


class Policy(Kind):
    """aws:iam/policy:Policy"""

    named = "name"
    replaced_by = ("name", "description")
    computed = ("arn",)

    def create(self, inputs: Values) -> str:
        made = boto3.client("iam").create_policy(
            PolicyName=inputs["name"],
            Description=inputs.get("description", ""),
            PolicyDocument=inputs["policy"],
        )
        return str(made["Policy"]["Arn"])

    def read(self, resource_id: str) -> Values | None:
        client = boto3.client("iam")
        found = asked(client.get_policy, PolicyArn=resource_id)
        if found is None:
            return None
        policy = found["Policy"]
        version = client.get_policy_version(
            PolicyArn=resource_id, VersionId=policy["DefaultVersionId"]
        )["PolicyVersion"]
        return {
            "arn": resource_id,
            "name": policy["PolicyName"],
            "policy": same_json_of(version["Document"]),
            **present(description=policy.get("Description")),
        }

    def update(self, resource_id: str, inputs: Values) -> None:
        boto3.client("iam").create_policy_version(
            PolicyArn=resource_id, PolicyDocument=inputs["policy"], SetAsDefault=True
        )

    def delete(self, resource_id: str) -> None:
        client = boto3.client("iam")
        for version in client.list_policy_versions(PolicyArn=resource_id)["Versions"]:
            if not version["IsDefaultVersion"]:
                client.delete_policy_version(PolicyArn=resource_id, VersionId=version["VersionId"])
        client.delete_policy(PolicyArn=resource_id)


class Role(Kind):
    """aws:iam/role:Role"""

    named = "name"
    replaced_by = ("name",)
    computed = ("arn",)

    def create(self, inputs: Values) -> str:
        boto3.client("iam").create_role(
            RoleName=inputs["name"],
            Description=inputs.get("description", ""),
            AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        )
        return str(inputs["name"])

    def read(self, resource_id: str) -> Values | None:
        found = asked(boto3.client("iam").get_role, RoleName=resource_id)
        if found is None:
            return None
        role = found["Role"]
        return {
            "name": role["RoleName"],
            "arn": role["Arn"],
            "assumeRolePolicy": same_json_of(role["AssumeRolePolicyDocument"]),
            **present(description=role.get("Description")),
        }

    def update(self, resource_id: str, inputs: Values) -> None:
        boto3.client("iam").update_assume_role_policy(
            RoleName=resource_id, PolicyDocument=inputs["assumeRolePolicy"]
        )

    def delete(self, resource_id: str) -> None:
        boto3.client("iam").delete_role(RoleName=resource_id)


class Attachment(Kind):
    """aws:iam/rolePolicyAttachment:RolePolicyAttachment"""

    replaced_by = ("role", "policyArn")

    def create(self, inputs: Values) -> str:
        boto3.client("iam").attach_role_policy(
            RoleName=inputs["role"], PolicyArn=inputs["policyArn"]
        )
        return f"{inputs['role']}/{inputs['policyArn']}"

    def read(self, resource_id: str) -> Values | None:
        role, _, policy = resource_id.partition("/")
        found = asked(boto3.client("iam").list_attached_role_policies, RoleName=role)
        attached = [item["PolicyArn"] for item in (found or {}).get("AttachedPolicies", [])]
        return {"role": role, "policyArn": policy} if policy in attached else None

    def update(self, resource_id: str, inputs: Values) -> None:
        """All that could change replaces it."""

    def delete(self, resource_id: str) -> None:
        role, _, policy = resource_id.partition("/")
        boto3.client("iam").detach_role_policy(RoleName=role, PolicyArn=policy)


def same_json_of(document: Any) -> str:
    """A document that boto3 has decoded, or not."""
    return same_json(document if isinstance(document, str) else json.dumps(document))
