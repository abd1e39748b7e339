"""What goes wrong with a share, in words.

The SDK's own texts are never passed on: they have the request's URL, which has the SAS token.
"""

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)

from components.errors import EpibackupError, NotFound, TargetUnreachable
from components.storage.azurefiles.service import Service

CLOCK_SKEW = timedelta(minutes=15)
"""How far a signed request's time may be off ("Authorize with Shared Key")."""

MISSING = frozenset({"ResourceNotFound", "ParentNotFound"})
"""What the service says of a file or folder that is not there."""

_ROLE = "the role Storage File Data Privileged Contributor on the share"

# Codes from "Azure Files error codes", "Common REST API error codes" and "Authorize requests".
_WORDS: dict[str, tuple[str, str]] = {
    "ShareNotFound": (
        "there is no such share",
        "make it: az storage share-rm create --storage-account {account} -n {share}",
    ),
    "ShareBeingDeleted": ("the share is being deleted", "wait, or choose another share"),
    "ParentNotFound": ("its folder is gone", "find out who removed it, and run again"),
    "ResourceNotFound": ("the file that was being written is gone", "find out who removed it"),
    "ShareDisabled": ("the share is disabled", "enable it, or choose another share"),
    "AccountIsDisabled": ("the storage account is disabled", "enable it"),
    "ShareSizeLimitReached": (
        "the share is full",
        (
            "raise its quota: az storage share-rm update --storage-account {account} -n {share} "
            "--quota GIB, or free space there"
        ),
    ),
    "AuthorizationPermissionMismatch": (
        "{source} has not the right to do that",
        f"give the identity {_ROLE}, or the SAS token the permissions rcwdl",
    ),
    "AuthorizationFailure": (
        "{source} is not let in",
        f"let this machine's network through the account's firewall, and give the identity {_ROLE}",
    ),
    "AuthorizationSourceIPMismatch": (
        "{source} is for other addresses than this machine's",
        "make a SAS token for this machine's address",
    ),
    "AuthorizationResourceTypeMismatch": (
        "{source} is not for files",
        "make the account SAS with resource types sco, or a SAS of the share",
    ),
    "AuthorizationServiceMismatch": (
        "{source} is not for the File service",
        "make the account SAS with service f",
    ),
    "KeyBasedAuthenticationNotPermitted": (
        "the storage account takes no keys and no SAS tokens",
        (
            "unset AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN "
            f"to use an Azure identity; it needs {_ROLE}"
        ),
    ),
    "InsufficientAccountPermissions": (
        "the storage account does not let {source} do that",
        "check the account's state and the permissions",
    ),
    "InvalidAuthenticationInfo": (
        "{source} is not accepted",
        "check the tenant, and that the identity belongs to the subscription",
    ),
    "ServerBusy": ("the service is busy, also when asked again", "run again later"),
    "OperationTimedOut": ("the service took too long, also when asked again", "run again later"),
    "InternalError": ("the service failed, also when asked again", "run again later"),
    "SharingViolation": (
        "a file is in use by an SMB client",
        "close it there: az storage handle list shows who has it open",
    ),
    "FileLockConflict": ("a file is locked by an SMB client", "close it there"),
    "DeletePending": ("a file is waiting for an SMB client to let it be deleted", "close it there"),
    "ReadOnlyAttribute": ("a file has the attribute read-only", "remove the attribute"),
    "Md5Mismatch": (
        "what arrived is not what was sent: its checksum is another",
        "run again; if it happens again, check this machine's memory and network",
    ),
    "UnsupportedHttpVerb": (
        "the service does not know this operation: an NFS share, or no Azure Files",
        "use an SMB share; mount an NFS share and give its path",
    ),
}


def error_code(error: HttpResponseError) -> str:
    """The service's code for what is wrong, such as ShareNotFound; empty if it has none."""
    code = getattr(error, "error_code", None)
    code = code or _header(error, "x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def _header(error: HttpResponseError, name: str) -> str | None:
    """A header of the answer; None if there is no answer, or none of that name."""
    headers: Mapping[str, str] = getattr(error.response, "headers", {})
    return headers.get(name)


def broke_off(error: HttpResponseError) -> bool:
    """Whether the answer was a good one, and its body did not arrive: so the SDK tells it."""
    return error.status_code is not None and error.status_code < 300


@contextlib.contextmanager
def explained(service: Service, name: str = "") -> Iterator[None]:
    """Turn the SDK's errors into ours; name: the file that is asked for."""
    try:
        yield
    except EpibackupError:
        raise
    except HttpResponseError as error:
        # `from None`: a chained error is printed with its own text.
        if broke_off(error):
            raise _unreachable(service, error) from None
        raise _refusal(service, error, name) from None
    except AzureError as error:
        raise _unreachable(service, error) from None


def _refusal(service: Service, error: HttpResponseError, name: str) -> EpibackupError:
    code = error_code(error)
    url = service.location.url
    if name and code in MISSING:
        return NotFound(f"there is no {name} in {url}", "epibackup list shows the runs")
    if isinstance(error, ClientAuthenticationError) and not code:
        return _no_identity(service, error)
    if code in ("AuthenticationFailed", "NoAuthenticationInformation"):
        words, hint = _not_accepted(service, error)
    else:
        words, hint = _WORDS.get(code, (f"the service answers {_status(error)} {code}".strip(), ""))
        location, source = service.location, service.credentials.source
        values = {"account": location.account, "share": location.share, "source": source}
        words, hint = words.format(**values), hint.format(**values)
    return TargetUnreachable(f"the target {url} refuses: {words}", hint)


def _status(error: HttpResponseError) -> str:
    return str(error.status_code or "without a status")


def _no_identity(service: Service, error: ClientAuthenticationError) -> EpibackupError:
    """No token: nobody is logged in, or the directory refuses."""
    codes = sorted(set(re.findall(r"AADSTS\d+", error.message or "")))
    said = f" (the directory says {', '.join(codes)})" if codes else ""
    return TargetUnreachable(
        f"there are no credentials for the storage account {service.location.account}{said}",
        "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or "
        "use an Azure identity (a managed one, AZURE_CLIENT_ID and its like, or az login) with "
        f"{_ROLE}",
    )


def _not_accepted(service: Service, error: HttpResponseError) -> tuple[str, str]:
    """Why credentials that look right are not accepted: expired, a wrong clock, or wrong."""
    credentials = service.credentials
    now = datetime.now(UTC)
    if credentials.expires and credentials.expires <= now:
        return (
            f"{credentials.source} has expired at {credentials.expires:%Y-%m-%d %H:%M} UTC",
            "make a new one: az storage share generate-sas",
        )
    told = _header(error, "Date")
    if told:
        off = now - parsedate_to_datetime(told)
        if abs(off) > CLOCK_SKEW:
            minutes = round(off.total_seconds() / 60)
            direction = "ahead of" if minutes > 0 else "behind"
            return (
                f"this machine's clock is {abs(minutes)} minutes {direction} the service's",
                "set the clock; the service takes 15 minutes",
            )
    return (
        f"{credentials.source} is not accepted",
        f"check that it belongs to {service.location.account} and has not been replaced",
    )


def _unreachable(service: Service, error: AzureError) -> TargetUnreachable:
    """The service gave no answer."""
    where = f"the target {service.location.url} cannot be reached"
    endpoint = service.endpoint
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TargetUnreachable(
                f"{where}: the certificate of {endpoint} is not trusted: {cause.verify_message}",
                "name the authority's certificate in epibackup:azurefiles ca_file",
            )
        if isinstance(cause, ssl.SSLError):
            return TargetUnreachable(
                f"{where}: {endpoint} does not speak TLS as it should ({cause.reason})",
                "check epibackup:azurefiles endpoint",
            )
        if isinstance(cause, socket.gaierror):
            return TargetUnreachable(
                f"{where}: the name in {endpoint} is not known",
                "check the account's name, this machine's DNS, and epibackup:azurefiles endpoint",
            )
        if isinstance(cause, ConnectionRefusedError):
            return TargetUnreachable(
                f"{where}: {endpoint} refuses the connection",
                "check epibackup:azurefiles endpoint and the network",
            )
    silent = any(
        isinstance(cause, ServiceRequestTimeoutError | ServiceResponseTimeoutError)
        for cause in causes
    )
    return TargetUnreachable(
        f"{where}: {endpoint} "
        + ("does not answer" if silent else "breaks the connection")
        + (", also when asked again" if service.options.retries else ""),
        "check the network and the service's state, then run again",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from, wherever the libraries keep it."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        kept = (found.__cause__, found.__context__, *found.args)
        kept += tuple(getattr(found, name, None) for name in ("inner_exception", "reason"))
        waiting += [item for item in kept if isinstance(item, BaseException)]
