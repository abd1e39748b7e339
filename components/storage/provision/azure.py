"""A file share for archives, as a Pulumi component."""

from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions

from components.storage.provision.component import checked, kept, sdk
from components.storage.provision.options import AzureOptions

ROLES = {
    "writer": "69566ab7-960f-475b-8e7c-b3118f30c6bd",
    "reader": "b8eda974-7b85-4f76-af95-65846b26df6d",
}
"""Storage File Data Privileged Contributor and … Reader: the roles for REST with tokens (Azure
built-in roles, Storage). The first can also read and delete: Azure has none that writes only."""


class AzureStorageArgs(TypedDict):
    """A storage account and a file share of Azure, and roles for those who write and read."""

    resource_group: Input[str]
    """The resource group, which exists."""
    account: str
    """The storage account's name; it is used for archives only."""
    share: str
    """The file share's name."""
    folder: NotRequired[str]
    """The folder in the share that archives go to."""
    location: NotRequired[Input[str]]
    """The region. Default: the resource group's."""
    sku: NotRequired[str]
    """Standard_LRS, Standard_ZRS (the default), Standard_GRS or Standard_GZRS."""
    access_tier: NotRequired[str]
    """The share's tier: TransactionOptimized, Hot or Cool (the default)."""
    quota_gib: NotRequired[int]
    """The share's size limit in GiB. Default: 1024."""
    soft_delete_days: NotRequired[int]
    """How long a deleted share can be brought back. Default: 14."""
    allow_shared_key: NotRequired[bool]
    """Accept the account's keys. Default: false."""
    infrastructure_encryption: NotRequired[bool]
    """Encrypt a second time, below the service. Default: false."""
    allowed_ip_ranges: NotRequired[list[str]]
    """Public IPv4 addresses and networks that may connect."""
    allowed_subnet_ids: NotRequired[list[Input[str]]]
    """Subnets of Azure, with a service endpoint for storage, that may connect."""
    private_endpoint_subnet_id: NotRequired[Input[str]]
    """Make a private endpoint in this subnet."""
    writer_principal_ids: NotRequired[list[Input[str]]]
    """Identities of Entra ID that write archives; they can also read and delete."""
    reader_principal_ids: NotRequired[list[Input[str]]]
    """Identities of Entra ID that read archives."""
    protect: NotRequired[bool]
    """Refuse a destroy, and any change that would replace the storage. Default: true."""
    retain_on_delete: NotRequired[bool]
    """Leave the storage as it is when it is taken out of the program. Default: true."""
    import_ids: NotRequired[dict[str, str]]
    """Parts that exist and are taken over instead of made, with their ids."""


class AzureStorage(pulumi.ComponentResource):
    """A file share in a storage account of its own: https and SMB 3.1.1 with AES-256-GCM only,
    no public blobs, deleted shares kept for a while."""

    location: Output[str]
    """The target: azurefiles://account/share/folder."""
    account_id: Output[str]
    """The storage account's resource id."""

    def __init__(
        self, name: str, args: AzureStorageArgs, opts: ResourceOptions | None = None
    ) -> None:
        needed = ["resource_group", "account", "share"]
        options = checked(AzureOptions, "AzureStorage", args, needed)
        storage = sdk("azure", "storage")
        super().__init__("epibackup:index:AzureStorage", name, {}, opts)
        self._args = args
        account = self._account(storage, options)
        # One after the other: the share's settings are those of its account's file service.
        service = storage.FileServiceProperties(
            f"{name}-file-service",
            resource_group_name=args["resource_group"],
            account_name=account.name,
            file_services_name="default",
            share_delete_retention_policy={"enabled": True, "days": options.soft_delete_days},
            protocol_settings={
                "smb": {
                    "versions": "SMB3.1.1",
                    "channel_encryption": "AES-256-GCM",
                    "kerberos_ticket_encryption": "AES-256",
                    # A mount with the account's key is a login by NTLMv2.
                    "authentication_methods": "NTLMv2;Kerberos"
                    if options.allow_shared_key
                    else "Kerberos",
                }
            },
            opts=kept(self, "file-service", args),
        )
        storage.FileShare(
            f"{name}-share",
            resource_group_name=args["resource_group"],
            account_name=account.name,
            share_name=options.share,
            access_tier=options.access_tier,
            share_quota=options.quota_gib,
            enabled_protocols="SMB",
            opts=kept(self, "share", args, depends_on=[service]),
        )
        for who, role in ROLES.items():
            self._assign(who, role, account)
        if args.get("private_endpoint_subnet_id") is not None:
            self._private_endpoint(account)
        self.location = Output.from_input(options.target())
        self.account_id = account.id
        self.register_outputs({"location": self.location, "account_id": self.account_id})

    def _account(self, storage: Any, options: AzureOptions) -> Any:
        args = self._args
        only_private = not (options.allowed_ip_ranges or args.get("allowed_subnet_ids"))
        endpoint = args.get("private_endpoint_subnet_id") is not None
        firewall = endpoint or not only_private
        return storage.StorageAccount(
            f"{self._name}-account",
            resource_group_name=args["resource_group"],
            account_name=options.account,
            location=args.get("location"),
            kind="StorageV2",
            sku={"name": options.sku},
            enable_https_traffic_only=True,
            minimum_tls_version="TLS1_2",
            allow_blob_public_access=False,
            allow_shared_key_access=options.allow_shared_key,
            allow_cross_tenant_replication=False,
            default_to_o_auth_authentication=True,
            public_network_access="Disabled" if endpoint and only_private else "Enabled",
            network_rule_set={
                "default_action": "Deny" if firewall else "Allow",
                "bypass": "None" if firewall else "AzureServices",
                "ip_rules": [
                    {"i_p_address_or_range": network, "action": "Allow"}
                    for network in options.allowed_ip_ranges
                ],
                "virtual_network_rules": [
                    {"virtual_network_resource_id": subnet, "action": "Allow"}
                    for subnet in args.get("allowed_subnet_ids") or []
                ],
            },
            encryption={
                "key_source": "Microsoft.Storage",
                "require_infrastructure_encryption": options.infrastructure_encryption,
                "services": {"file": {"enabled": True, "key_type": "Account"}},
            },
            opts=kept(self, "account", args, ignore_changes=["tags"]),
        )

    def _assign(self, who: str, role: str, account: Any) -> None:
        """Give a role to principals, for the account: the roles' rights on backup semantics are
        the file service's, above its shares."""
        principals: list[Input[str]] = (
            self._args.get("writer_principal_ids") or []
            if who == "writer"
            else self._args.get("reader_principal_ids") or []
        )
        if not principals:
            return
        authorization = sdk("azure", "authorization")
        for number, principal in enumerate(principals):
            authorization.RoleAssignment(
                f"{self._name}-{who}-{number}",
                principal_id=principal,
                role_definition_id=account.id.apply(
                    lambda known: (
                        "/".join(known.split("/")[:3])
                        + f"/providers/Microsoft.Authorization/roleDefinitions/{role}"
                    )
                ),
                scope=account.id,
                opts=ResourceOptions(parent=self),
            )

    def _private_endpoint(self, account: Any) -> None:
        network = sdk("azure", "network")
        network.PrivateEndpoint(
            f"{self._name}-endpoint",
            resource_group_name=self._args["resource_group"],
            location=self._args.get("location"),
            subnet={"id": self._args.get("private_endpoint_subnet_id")},
            private_link_service_connections=[
                {
                    "name": "file",
                    "private_link_service_id": account.id,
                    "group_ids": ["file"],
                }
            ],
            opts=ResourceOptions(parent=self),
        )
