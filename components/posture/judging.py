"""What is asked of the posture process, what it answers, and when it refuses a run."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from components.storage.options import TargetOptions
from components.storage.posture import Finding, Level


class PostureRequest(BaseModel):
    """Everything the posture process needs; it holds no secret. It answers with Posture.

    minimum_days: how long every archive has to be kept.
    accepted: findings that the stack's configuration accepts, by id.
    before: what was weak at the last run, by id; None if nobody knows. Storage that the stack
        makes was weak in nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    target_options: TargetOptions
    minimum_days: int
    accepted: list[str]
    before: list[str] | None


class Told(BaseModel):
    """A finding in an answer; see components.storage.posture.Finding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    level: Level
    message: str
    remedy: str


class Posture(BaseModel):
    """How a target is protected. weak: the ids of what is, accepted or not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weak: list[str]
    findings: list[Told]


def posture_of(findings: Sequence[Finding]) -> Posture:
    """The answer for what was found."""
    return Posture(
        weak=sorted({found.id for found in findings if found.level == "weak"}),
        findings=[Told(**found.as_json()) for found in findings],
    )


def weaker(found: Posture, before: Sequence[str] | None, accepted: Sequence[str]) -> list[Told]:
    """What is weak, was not at the last run, and is not accepted.

    Where nobody knows how the last run was, nothing has become weaker.
    """
    if before is None:
        return []
    return [
        item
        for item in found.findings
        if item.level == "weak" and item.id not in before and item.id not in accepted
    ]
