"""Names and ids as AWS and Azure take them: types that refuse, in words, what cannot be one."""

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator

_FOLDER = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_PRINCIPAL = re.compile(
    r"arn:aws[a-z-]*:(iam|sts)::\d{12}:(root|(role|user|assumed-role)/[\w+=,.@/-]+)"
    r"|[a-z0-9.-]+\.amazonaws\.com(\.cn)?"
)
_KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+")
_OBJECT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SUBNET = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network"
    r"/virtualNetworks/[^/]+/subnets/[^/]+",
    re.IGNORECASE,
)
_PRIVATE = tuple(
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)


def bucket_name(name: str) -> str:
    """Check the name of a bucket.

    Rules: Amazon S3 User Guide, "General purpose bucket naming rules"; names with a dot are
    refused, too, because TLS certificates do not cover them.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError(
            f"{name!r} cannot be a bucket's name: 3 to 63 of a-z, 0-9 and hyphen, beginning and "
            "ending with a letter or digit (no dots: certificates would not fit)"
        )
    reserved = ("xn--", "sthree-", "amzn-s3-demo-")
    ends = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3")
    if name.startswith(reserved) or name.endswith(ends):
        raise ValueError(f"{name!r} cannot be a bucket's name: Amazon reserves its begin or end")
    return name


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


def _network(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not an IPv4 address or network: {error}") from None
    inside = any(network.subnet_of(private) for private in _PRIVATE)
    if inside or ("/" in value and network.prefixlen > 30):
        raise ValueError(
            f"{value!r} cannot be in an Azure firewall: it takes public addresses, and networks "
            "up to /30 (private addresses come through a subnet or a private endpoint)"
        )
    return value


BucketName = Annotated[str, AfterValidator(bucket_name)]
Folder = Annotated[
    str, _matching(_FOLDER, "a folder: A-Z a-z 0-9 . _ - in names, / between, none at the ends")
]
Principal = Annotated[
    str,
    _matching(
        _PRINCIPAL,
        "a principal: write the ARN of a role, a user or an account's root, or a service such as "
        "ec2.amazonaws.com",
    ),
]
KmsKey = Annotated[str, _matching(_KMS_KEY, "a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID")]
ObjectId = Annotated[str, _matching(_OBJECT_ID, "an object id of Entra ID (a UUID)")]
# Azure's rules: "Naming rules and restrictions for Azure resources", and "Naming and referencing
# shares" of the file service's REST reference.
ResourceGroup = Annotated[
    str, _matching(re.compile(r"[\w().-]{0,89}[\w()-]"), "the name of a resource group")
]
AccountName = Annotated[
    str,
    _matching(re.compile(r"[a-z0-9]{3,24}"), "a storage account's name: 3 to 24 of a-z and 0-9"),
]
ShareName = Annotated[
    str,
    _matching(
        re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
        "a share's name: 3 to 63 of a-z, 0-9 and single hyphens, none at the ends",
    ),
]
FolderPath = Annotated[
    str,
    _matching(
        re.compile(r"(?!.*/\.\.?(/|$))(/[^/\0\n]+)+"),
        "an absolute path without . and .., and without a slash at its end",
    ),
]
Subnet = Annotated[str, _matching(_SUBNET, "a subnet's resource id, /subscriptions/…/subnets/…")]
PublicNetwork = Annotated[str, AfterValidator(_network)]
