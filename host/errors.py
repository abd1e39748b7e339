"""Errors of the host side."""

from typing import Any, Dict


class HostError(Exception):
    """A step on this host failed.

    message: what failed, with the last lines of the command that failed.
    hint: what a person can do about it; empty if there is nothing to advise.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_json(self) -> Dict[str, Any]:
        """The error as it travels in a snapshot's or a restore's answer."""
        return {"message": self.message, "hint": self.hint}
