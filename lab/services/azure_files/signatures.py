"""What the double of Azure Files accepts as proof of who asks: Shared Key, SAS and bearer tokens.

The rules are those of the public REST reference: "Authorize with Shared Key" (the string that is
signed for the File service), "Create a service SAS" and "Create an account SAS" (version
2020-12-06 and later).
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from lab.services.azure_files.account import Account

CLOCK_SKEW = timedelta(minutes=15)
_SIGNED_HEADERS = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type"),
    *("date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


class RefusedError(Exception):
    """A request that the service answers with an error."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail


def signature(key: str, text: str) -> str:
    """The HMAC-SHA256 of a text under an account's key, both in base64."""
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def check_shared_key(
    account: Account, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> None:
    """Check a request that is signed with the account's key; raises RefusedError.

    path: as it is in the request line, still encoded. headers: by lower-case name.
    """
    sent = parsedate_to_datetime(headers["x-ms-date"])
    if abs(account.now() - sent) > CLOCK_SKEW:
        raise RefusedError(403, "AuthenticationFailed", "Request date header too old")
    values = {name: headers.get(name, "") for name in _SIGNED_HEADERS}
    if values["content-length"] == "0":
        values["content-length"] = ""
    if "x-ms-date" in headers:
        values["date"] = ""
    own = sorted(name for name in headers if name.startswith("x-ms-"))
    text = "\n".join(
        [
            method,
            *values.values(),
            *(f"{name}:{headers[name].strip()}" for name in own),
            f"/{account.name}{path}",
            *(f"{name.lower()}:{query[name]}" for name in sorted(query, key=str.lower)),
        ]
    )
    expected = f"SharedKey {account.name}:{signature(account.key, text)}"
    if not hmac.compare_digest(headers["authorization"], expected):
        raise RefusedError(
            403, "AuthenticationFailed", "The MAC signature is not the same as any computed one"
        )


def check_sas(
    account: Account, path: str, query: Mapping[str, str], permission: str, on_share: bool
) -> None:
    """Check a shared access signature in a request's query; raises RefusedError.

    permission: the letters of which one is enough. on_share: whether the operation is about the
    share itself, which only an account SAS may do.
    """
    given = {name: query.get(name, "") for name in ("sp", "st", "se", "si", "sip", "spr", "sv")}
    if "ss" in query:
        kinds = {"ss": query["ss"], "srt": query.get("srt", "")}
        text = "\n".join(
            [
                *(account.name, given["sp"], kinds["ss"], kinds["srt"], given["st"], given["se"]),
                *(given["sip"], given["spr"], given["sv"], "", ""),
            ]
        )
        if "f" not in kinds["ss"] or ("s" if on_share else "o") not in kinds["srt"]:
            raise RefusedError(403, "AuthorizationResourceTypeMismatch")
    else:
        share = unquote(path).split("/")[1]
        text = "\n".join(
            [
                *(
                    given["sp"],
                    given["st"],
                    given["se"],
                    f"/file/{account.name}/{share}",
                    given["si"],
                ),
                *(given["sip"], given["spr"], given["sv"]),
                *(query.get(name, "") for name in ("rscc", "rscd", "rsce", "rscl", "rsct")),
            ]
        )
        if query.get("sr") != "s":
            raise RefusedError(403, "AuthenticationFailed", "only a share's SAS is known here")
    if not hmac.compare_digest(query["sig"], signature(account.key, text)):
        raise RefusedError(403, "AuthenticationFailed", "Signature did not match")
    now = account.now()
    if (given["st"] and now < _time(given["st"])) or now >= _time(given["se"]):
        raise RefusedError(
            403, "AuthenticationFailed", "Signature not valid in the specified time frame"
        )
    if (on_share and "ss" not in query) or not set(permission) & set(given["sp"]):
        raise RefusedError(403, "AuthorizationPermissionMismatch")


def check_bearer(tokens: set[str], headers: Mapping[str, str], on_share: bool) -> None:
    """Check a bearer token; raises RefusedError.

    The File service takes tokens only from who says that all access rules are to be passed over,
    which is what the role "Storage File Data Privileged Contributor" is for, and only for files
    and directories.
    """
    if headers["authorization"].removeprefix("Bearer ") not in tokens:
        raise RefusedError(401, "InvalidAuthenticationInfo")
    if headers.get("x-ms-file-request-intent") != "backup":
        raise RefusedError(400, "MissingRequiredHeader", "x-ms-file-request-intent")
    if on_share:
        raise RefusedError(403, "AuthorizationFailure")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
