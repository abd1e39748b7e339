"""A folder for archives, as a Pulumi component; run as a module, this makes it."""

import os
import stat
import sys
from pathlib import Path
from typing import TypedDict

import pulumi
from pulumi import Output, ResourceOptions
from pulumi_command import local

from components.errors import EpibackupError, PreflightRefused
from components.host_agent import quoted
from components.storage.provision.component import checked
from components.storage.provision.options import DirectoryOptions


class DirectoryStorageArgs(TypedDict):
    """A folder of the machine that Pulumi runs on."""

    path: str
    """The folder, an absolute path."""


class DirectoryStorage(pulumi.ComponentResource):
    """A folder that only its owner can use. It is made once: one that is gone later is a missing
    mount, and the run says so. A destroy leaves it alone, with all that is in it."""

    location: Output[str]
    """The target: the path."""

    def __init__(
        self, name: str, args: DirectoryStorageArgs, opts: ResourceOptions | None = None
    ) -> None:
        options = checked(DirectoryOptions, "DirectoryStorage", args, ["path"])
        super().__init__("epibackup:index:DirectoryStorage", name, {}, opts)
        path = str(options.path)
        made = local.Command(
            f"{name}-folder",
            create=quoted([sys.executable, "-m", "components.storage.provision.directory", path]),
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self),
        )
        self.location = made.stdout.apply(lambda _: path)
        self.register_outputs({"location": self.location})


def make_directory(path: Path) -> None:
    """Make a folder with mode 0700, or check the one that is there; nothing in it is touched.

    Raises PreflightRefused if it is no folder, is somebody else's, or others can use it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise PreflightRefused(f"{path} is not a folder", "move it away") from None
        if status.st_uid != os.geteuid():
            raise PreflightRefused(
                f"{path} belongs to the user {status.st_uid}, and this one is {os.geteuid()}",
                f"chown {os.geteuid()} {path}, or choose another folder",
            ) from None
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise PreflightRefused(
                f"{path} can be used by others: mode {stat.S_IMODE(status.st_mode):04o}",
                f"chmod 700 {path}",
            ) from None


def main() -> int:
    """Make the folder that is named on the command line."""
    try:
        make_directory(Path(sys.argv[1]))
    except EpibackupError as error:
        sys.stderr.write(f"{error.message}; {error.hint}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]} cannot be made: {error.strerror}\n")
        return PreflightRefused.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
