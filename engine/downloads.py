"""What can be had from Pulumi directly: its CLI by its own installer, and the `command` plugin."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from engine import pins
from engine.cache import cache_folder

_INSTALLER_ADDRESS = "https://get.pulumi.com/install.sh"
_PROBE_SECONDS = 5
_INSTALL_SECONDS = 300
_PLUGIN_SECONDS = 60

_INSTALL = """
import sys
from semver import VersionInfo
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
"""


class NotReachableError(Exception):
    """Pulumi's downloads are out of reach; the text says in a line what was tried."""


def installed_cli() -> Path:
    """Return where Pulumi's own installer puts the CLI, whether it is there or not."""
    return cache_folder() / f"installer-{pins.SDK}" / "bin" / "pulumi"


def install_cli() -> None:
    """Let Pulumi's own installer fetch the CLI.

    :raises NotReachableError: that failed or took more than 5 minutes.
    """
    try:
        # The installer itself would wait long for a network that answers nothing.
        with urllib.request.urlopen(_INSTALLER_ADDRESS, timeout=_PROBE_SECONDS):
            pass
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise NotReachableError(f"Pulumi's installer cannot be reached ({reason})") from error
    root = installed_cli().parents[1]
    _run(
        [sys.executable, "-c", _INSTALL, str(root), pins.SDK],
        dict(os.environ),
        _INSTALL_SECONDS,
        "Pulumi's installer",
    )


def installed_plugin() -> Path | None:
    """Return the installed official `command` plugin of the pinned version, if there is one."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    folder = home / "plugins" / f"resource-command-v{pins.COMMAND_PROVIDER}"
    plugin = folder / "pulumi-resource-command"
    # The CLI marks a download that did not finish.
    unfinished = folder.with_suffix(folder.suffix + ".partial")
    return plugin if plugin.exists() and not unfinished.exists() else None


def install_plugin(cli: Path) -> None:
    """Let a CLI fetch the official `command` plugin.

    :raises NotReachableError: that failed or took more than a minute.
    """
    _run(
        [str(cli), "plugin", "install", "resource", "command", pins.COMMAND_PROVIDER],
        {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        _PLUGIN_SECONDS,
        "the download of the command plugin",
    )


def _run(arguments: list[str], environment: dict[str, str], seconds: float, name: str) -> None:
    try:
        result = subprocess.run(
            arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NotReachableError(f"{name} did not finish in {seconds:.0f} s") from error
    except OSError as error:
        raise NotReachableError(f"{name} cannot be started ({error})") from error
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()
        raise NotReachableError(f"{name} failed ({lines[-1].strip()})")
