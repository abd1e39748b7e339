"""Holds: a person's word that an archive stays, kept beside it on the target.

An archive is held while there is a file of its name with `.hold` behind it, whatever is in it; so
every machine sees it, and no stack or catalog is needed.
"""

from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.archive.naming import ARCHIVE
from components.errors import EpibackupError, NotFound, UsageError
from components.storage.target import Target

SUFFIX = ".hold"
LARGEST_BYTES = 64 << 10
LONGEST_REASON = 500


class Hold(BaseModel):
    """Why an archive stays. by: user and machine; since: UTC."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    by: str = Field(max_length=LONGEST_REASON)
    since: datetime


UNREADABLE = "its hold cannot be read"


def held_keys(names: Iterable[str]) -> list[str]:
    """The archives that are held, by the names on a target; they may be gone themselves."""
    archives = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
    return [name for name in archives if ARCHIVE.fullmatch(name)]


def read_hold(target: Target, key: str) -> Hold | None:
    """The hold of an archive that is held; None if the file does not say what it should.

    Raises NotFound if it was released meanwhile, TargetUnreachable.
    """
    with target.open(key + SUFFIX) as stream:
        data = stream.read(LARGEST_BYTES + 1)
    try:
        return Hold.model_validate_json(data) if len(data) <= LARGEST_BYTES else None
    except ValidationError:
        return None


def is_held(target: Target, key: str) -> bool:
    """Whether an archive is held at this moment; raises TargetUnreachable."""
    try:
        target.size(key + SUFFIX)
    except NotFound:
        return False
    return True


def hold(target: Target, key: str, reason: str, by: str, since: datetime) -> Hold:
    """Hold an archive.

    Raises UsageError for a reason that is none and for an archive that is held already.
    """
    if not reason.strip() or not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise UsageError(
            "a hold needs a reason that tells the next person why",
            f"--reason TEXT, one line of at most {LONGEST_REASON} characters",
        )
    _refuse_if_held(target, key)
    made = Hold(reason=reason.strip(), by=by, since=since)
    upload = target.create([key + SUFFIX])
    try:
        upload.write(made.model_dump_json().encode())
        upload.publish()
    except EpibackupError:
        _refuse_if_held(target, key)  # somebody else was faster
        raise
    finally:
        upload.abort()
    return made


def release(target: Target, key: str) -> None:
    """End an archive's hold; raises NotFound if it has none."""
    if not is_held(target, key):
        raise NotFound(f"{key} is not held", "epibackup hold lists the holds")
    target.delete(key + SUFFIX)


def _refuse_if_held(target: Target, key: str) -> None:
    if not is_held(target, key):
        return
    known = read_hold(target, key)
    told = f"{known.reason} ({known.by}, {known.since:%Y-%m-%d})" if known else UNREADABLE
    raise UsageError(f"{key} is held already: {told}", "to change it, --release it first")
