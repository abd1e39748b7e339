"""Reaching a share: where it is, with which credentials, by which client."""

import base64
import binascii
import functools
import logging
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.core.utils import parse_connection_string
from azure.storage.fileshare import ShareClient
from requests.adapters import HTTPAdapter

from components.errors import UsageError
from components.storage.options import AzureFilesOptions

RANGE_BYTES = 4 << 20
"""The most that Put Range takes, and that a range's Content-MD5 is given for (REST reference)."""

PUBLIC_CLOUD = "core.windows.net"
TOKEN_SCOPE = "https://storage.azure.com/.default"  # noqa: S105 - the same in all clouds

# Where nobody listens to them, Python prints warnings; what matters of them is in our errors.
logging.getLogger("azure").addHandler(logging.NullHandler())

CONNECTIONS = 64
"""Connections that are kept open for the next request; more than there are requests at once."""

_LOCATION = re.compile(
    r"azurefiles://(?P<account>[a-z0-9]{3,24})/(?P<share>[a-z0-9](?:-?[a-z0-9]){2,62})"
    r"(?:/(?P<folder>.*?))?/?"
)
# "Naming and referencing shares, directories, files, and metadata": these characters are not
# allowed, and dots at the end of a name are cut off.
_FOLDER_NAME = re.compile(r'[^\x00-\x1f\x7f"\\/:|<>*?#%]{0,254}[^\x00-\x1f\x7f"\\/:|<>*?#%. ]')
_FORM = "write azurefiles://ACCOUNT/SHARE or azurefiles://ACCOUNT/SHARE/FOLDER"


@dataclass(frozen=True)
class Location:
    """A folder of a share. folder: the names of the folders down to it; empty is the share."""

    account: str
    share: str
    folder: tuple[str, ...]

    @property
    def url(self) -> str:
        """The location as a user writes it."""
        return "/".join(["azurefiles:/", self.account, self.share, *self.folder])

    def path(self, name: str) -> str:
        """The path of a file of this folder in its share."""
        return "/".join([*self.folder, name])


def parse_location(text: str) -> Location:
    """Read a target's location; raises UsageError, which never repeats what may be a secret."""
    if "?" in text or "@" in text:
        raise UsageError(
            "the target azurefiles:// has a ? or an @ in it: credentials do not belong there",
            "give them in the environment: docs/targets.md says how",
        )
    match = _LOCATION.fullmatch(text)
    if not match:
        raise UsageError(f"the target {text} cannot be used: it is no location of a share", _FORM)
    folder = tuple(match["folder"].split("/")) if match["folder"] else ()
    for name in folder:
        if not _FOLDER_NAME.fullmatch(name):
            raise UsageError(
                f"the target {text} cannot be used: {name!r} is no name of a folder in Azure Files",
                _FORM,
            )
    return Location(match["account"], match["share"], folder)


@dataclass(frozen=True)
class Credentials:
    """How the share is used, and what a person calls it.

    value: a SAS token is a str. endpoint: what a connection string says about it. expires: of a
    SAS token that says it.
    """

    value: AzureNamedKeyCredential | TokenCredential | str = field(repr=False)
    source: str
    endpoint: str | None = None
    expires: datetime | None = None


def find_credentials(account: str) -> Credentials:
    """The credentials for an account from the environment, in the order that `az` has.

    Raises UsageError for what cannot be right, without repeating it.
    """
    for variable, read in (
        ("AZURE_STORAGE_CONNECTION_STRING", _from_connection_string),
        ("AZURE_STORAGE_KEY", _from_key),
        ("AZURE_STORAGE_SAS_TOKEN", _from_sas),
    ):
        if value := os.environ.get(variable, "").strip():
            return read(account, value, variable)
    # Imported here: it takes half a second, and keys do not need it.
    from azure.identity import DefaultAzureCredential

    return Credentials(DefaultAzureCredential(), "the Azure identity of this user or machine")


def _from_connection_string(account: str, value: str, variable: str) -> Credentials:
    try:
        found = parse_connection_string(value)
    except ValueError:
        raise UsageError(
            f"{variable} is no connection string", "copy it again: az storage account keys list"
        ) from None
    named = found.get("accountname")
    if named not in (None, account):
        raise UsageError(
            f"{variable} is for the storage account {named}, and the target is in {account}",
            "correct one of them",
        )
    endpoint = found.get("fileendpoint")
    if not endpoint and found.get("endpointsuffix"):
        endpoint = f"https://{account}.file.{found['endpointsuffix']}"
    if key := found.get("accountkey"):
        credentials = _from_key(account, key, variable)
    elif sas := found.get("sharedaccesssignature"):
        credentials = _from_sas(account, sas, variable)
    else:
        raise UsageError(
            f"{variable} has neither AccountKey nor SharedAccessSignature",
            "use another connection string, or leave it out to use an Azure identity",
        )
    return Credentials(credentials.value, variable, endpoint, credentials.expires)


def _from_key(account: str, value: str, variable: str) -> Credentials:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        raise UsageError(
            f"the account key in {variable} is not base64: it is cut or something else",
            f"az storage account keys list -n {account} shows it",
        ) from None
    return Credentials(AzureNamedKeyCredential(account, value), f"the account key in {variable}")


def _from_sas(_: str, value: str, variable: str) -> Credentials:
    token = value.removeprefix("?")
    fields = parse_qs(token)
    if "sig" not in fields:
        raise UsageError(
            f"{variable} holds no SAS token: it has no signature",
            "az storage share generate-sas makes one",
        )
    expires = None
    if "se" in fields:
        try:
            expires = datetime.fromisoformat(fields["se"][0])
        except ValueError:
            raise UsageError(f"the SAS token in {variable} has no readable expiry") from None
        expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    return Credentials(token, f"the SAS token in {variable}", expires=expires)


class Service:
    """The share's client, made when it is first needed: a plan may be made without credentials."""

    def __init__(self, location: Location, options: AzureFilesOptions) -> None:
        self.location = location
        self.options = options

    @functools.cached_property
    def credentials(self) -> Credentials:
        """Raises UsageError."""
        return find_credentials(self.location.account)

    @functools.cached_property
    def endpoint(self) -> str:
        """The URL of the account's File service; raises UsageError."""
        account, given = self.location.account, self.options.endpoint
        if given and "://" not in given:
            return f"https://{account}.file.{given}"
        found = given or self.credentials.endpoint or f"https://{account}.file.{PUBLIC_CLOUD}"
        if urlsplit(found).scheme != "https":
            raise UsageError(
                f"the File service of {account} is not used over http: the connection string "
                "names such an endpoint",
                "use https",
            )
        return found.rstrip("/")

    @functools.cached_property
    def share(self) -> ShareClient:
        """The client; its methods may be used by several threads. Raises the SDK's errors."""
        options, credential = self.options, self.credentials.value
        token = not isinstance(credential, AzureNamedKeyCredential | str)
        if not isinstance(credential, AzureNamedKeyCredential | str):
            # The client would wait and ask again for credentials that are not there.
            credential.get_token(TOKEN_SCOPE)
        return ShareClient(
            self.endpoint,
            self.location.share,
            credential=credential,
            # Files are not for tokens but with this intent, and for who has the role Storage File
            # Data Privileged Contributor ("Access Azure file shares using Microsoft Entra ID with
            # Azure Files OAuth over REST").
            token_intent="backup" if token else None,
            transport=_transport(options),
            max_chunk_get_size=RANGE_BYTES,
            max_single_get_size=RANGE_BYTES,
            # The SDK's waits begin at 18 s; these are 2, 4, 8, 16 s, each 1 s more or less.
            initial_backoff=0,
            increment_base=2,
            random_jitter_range=1,
            retry_total=options.retries,
            retry_connect=options.retries,
            retry_read=options.retries,
            retry_status=options.retries,
        )


def _transport(options: AzureFilesOptions) -> RequestsTransport:
    session = requests.Session()
    # The SDK's own session keeps 10 connections, and warns about each further one.
    session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0))
    settings: dict[str, Any] = {"connection_verify": options.ca_file} if options.ca_file else {}
    return RequestsTransport(
        session=session,
        connection_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        **settings,
    )
