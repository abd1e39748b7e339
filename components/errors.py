"""The errors a person sees: one class an exit code (docs/exit-codes.md)."""

from collections.abc import Mapping
from typing import ClassVar


class EpibackupError(Exception):
    """Something went wrong that nothing below describes better.

    message: what failed and where, with the values that matter.
    hint: what to do about it; empty if there is nothing to advise.
    details: what else `--json` prints beside the error.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, hint: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def as_json(self) -> dict[str, object]:
        """The error as `--json` prints it."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
        }


class UsageError(EpibackupError):
    """A flag, a setting, the inventory or another input is wrong."""

    exit_code = 2
    code = "usage"


class Incomplete(EpibackupError):
    """The archive exists, and a service is not in it."""

    exit_code = 3
    code = "incomplete"
    retryable = True


class PreflightRefused(EpibackupError):
    """A check before the work refused it; nothing was changed."""

    exit_code = 4
    code = "preflight_refused"


class PolicyRefused(EpibackupError):
    """A policy or a drift check refused it; nothing was changed."""

    exit_code = 5
    code = "policy_refused"


class NotFound(EpibackupError):
    """A run, an archive or a stack does not exist."""

    exit_code = 6
    code = "not_found"


class Locked(EpibackupError):
    """Another run holds the stack's lock."""

    exit_code = 7
    code = "locked"
    retryable = True


class TargetUnreachable(EpibackupError):
    """The target cannot be written or read."""

    exit_code = 8
    code = "target_unreachable"
    retryable = True


class VerificationFailed(EpibackupError):
    """Data is not what it should be: damaged, cut or different."""

    exit_code = 9
    code = "verification_failed"


class Interrupted(EpibackupError):
    """A person or the system ended the work."""

    exit_code = 130
    code = "interrupted"
    retryable = True
