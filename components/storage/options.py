"""Options of targets, a section for each scheme; `epibackup:target` says which one is used."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the stack configuration: closed, so that a typing mistake is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetOptions(Section):
    """The options of every kind of target, by scheme."""
