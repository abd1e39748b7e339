"""Exemptions: what need not be saved, until a day and with somebody who answers for it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

from components.archive.manifest import Missing
from program.options import Exemption


def today() -> date:
    """The day by which exemptions are measured: UTC."""
    return datetime.now(UTC).date()


def exemption_of(item: Missing, exempt: Sequence[Exemption]) -> Exemption | None:
    """The exemption that names something missing, expired or not; of several the longest."""
    found = [known for known in exempt if _names(known, item)]
    return max(found, key=lambda known: known.until, default=None)


def exemption_warnings(
    missing: Sequence[Missing], exempt: Sequence[Exemption], now: date
) -> list[str]:
    """What is wrong with exemptions.

    Only warnings: a backup must not stop on the day an exemption ends. The policy `covered`
    refuses what has ended.
    """
    warnings = []
    for known in exempt:
        if not any(_names(known, item) for item in missing):
            warnings.append(f"epibackup:exempt: {known.what} names nothing that is missing")
        elif known.until < now:
            warnings.append(
                f"epibackup:exempt: {known.what} was exempt until {known.until}; "
                f"{known.owner} answers for it"
            )
    return warnings


def _names(known: Exemption, item: Missing) -> bool:
    """Whether an exemption means this: by its group, or by the whole name that plans show."""
    return known.what == item.what or item.what.endswith(f"({known.what})")
