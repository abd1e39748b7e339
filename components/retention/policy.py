"""The retention policy: the section `epibackup:retention` of the stack configuration."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from components.storage.options import Section

RULES = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
LONGEST_DAYS = 36500


class Retention(Section):
    """Which archives stay; without a rule, all do.

    The rules are those of `restic forget`: each looks at all archives by itself, and an archive
    stays if one of them wants it (restic 0.18, doc/060_forget.rst).
    """

    keep_last: int | None = Field(
        None, ge=0, description="Keep this many of the newest good archives.", examples=[3]
    )
    keep_daily: int | None = Field(
        None,
        ge=0,
        description="Keep the newest good archive of each of this many days (UTC) that have one.",
        examples=[7],
    )
    keep_weekly: int | None = Field(
        None, ge=0, description="The same for weeks (ISO 8601, from Monday, UTC).", examples=[5]
    )
    keep_monthly: int | None = Field(None, ge=0, description="The same for months.", examples=[12])
    keep_yearly: int | None = Field(None, ge=0, description="The same for years.", examples=[3])
    keep_within_days: int | None = Field(
        None,
        ge=0,
        le=LONGEST_DAYS,
        description="Keep everything that is at most this many days older than the newest good "
        "archive.",
        examples=[2],
    )
    minimum_days: int | None = Field(
        None,
        ge=0,
        le=LONGEST_DAYS,
        description="Never remove an archive that is younger than this many days, whatever the "
        "rules say. Alone it removes nothing.",
        examples=[7],
    )

    @property
    def is_active(self) -> bool:
        """Whether anything can ever be removed: whether there is a rule."""
        return any(getattr(self, rule) for rule in (*RULES, "keep_within_days"))

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        given = [rule for rule in (*RULES, "keep_within_days") if getattr(self, rule) is not None]
        if given and not self.is_active:
            raise PydanticCustomError(
                "retention",
                "all rules are 0, which would remove every archive but the last: set one of them "
                "to at least 1, or leave the section out to remove nothing",
            )
        return self
