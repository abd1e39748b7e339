"""Which Pulumi engine is used, and how one is obtained where there is none.

In this order: `pulumi` on PATH, if it is new enough; the embedded CLI, if it is built; Pulumi's own
installer; building the embedded CLI. And for the `command` provider: the official plugin, if it is
installed or can be downloaded, else the embedded one.

Nothing here prints, and nothing changes what other programs use: all that is fetched goes into the
cache of `epibackup`, except for an official plugin, which goes where Pulumi keeps its plugins.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from engine import downloads, launchers, machine, pins
from engine.cache import Findings
from engine.embedded import EmbeddedCli
from engine.errors import EngineError

FORCE_VARIABLE = "EPIBACKUP_ENGINE"
_CLI = "cli"
_PLUGIN = "command plugin"

Report = Callable[[str], None]


class Origin(StrEnum):
    """Where a part of the engine comes from."""

    PATH = "path"
    EMBEDDED = "embedded"
    INSTALLER = "installer"
    PLUGIN = "plugin"
    """An official plugin in Pulumi's own folder."""


@dataclass(frozen=True)
class Engine:
    """A Pulumi engine that can be used now.

    :ivar pulumi: the CLI.
    :ivar version: its version, without `v`.
    :ivar origin: where the CLI comes from: PATH, EMBEDDED or INSTALLER.
    :ivar reason: why it is this one, in a sentence for people.
    :ivar provider_origin: where the `command` provider comes from: PATH, PLUGIN or EMBEDDED.
    :ivar path_entries: folders that have to be in front on PATH.
    """

    pulumi: Path
    version: str
    origin: Origin
    reason: str
    provider_origin: Origin
    path_entries: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment variables that make a CLI started by hand the same engine.

        Without virtual environment in the project's options, a language host takes the first
        `python3` on PATH; these variables name the interpreter that `epibackup` runs with.
        """
        # Without our own entries of another time: what was chosen is what is found.
        rest = (entry for entry in machine.search_path() if not launchers.is_ours(entry))
        variables = {
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_PYTHON_CMD": launchers.interpreter(),
        }
        if self.provider_origin is Origin.EMBEDDED:
            # Downloads are out of reach. Without this, the CLI finds that out by waiting.
            variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
        chosen_by_user = {name: os.environ[name] for name in variables if name in os.environ}
        path = os.pathsep.join(map(str, (*self.path_entries, *rest)))
        return {"PATH": path, **variables, **chosen_by_user}


def find() -> Engine | None:
    """Return the engine that can be used as things are, without network and in no time.

    :returns: None when something has to be fetched, built or found out first: see `obtain`.
    :raises EngineError: the choice in `EPIBACKUP_ENGINE` cannot be met, or is none.
    """
    return _Selection(_forced()).find()


def obtain(report: Report, *, again: bool = False) -> Engine:
    """Return an engine, fetching or building what is missing. This may take minutes.

    :param report: takes sentences for people: what is done and how long it takes.
    :param again: try also what was found out of reach in the last days.
    :raises EngineError: there is no way to an engine.
    """
    findings = Findings()
    if again:
        findings.forget(_CLI)
        findings.forget(_PLUGIN)
    selection = _Selection(_forced())
    cli = selection.find_cli() or selection.obtain_cli(report)
    return selection.with_provider(cli) or selection.obtain_provider(cli, report)


def _forced() -> Origin | None:
    value = os.environ.get(FORCE_VARIABLE, "")
    choices = (Origin.PATH, Origin.EMBEDDED, Origin.INSTALLER)
    if value and value not in choices:
        raise EngineError(
            f"{FORCE_VARIABLE} is {value!r}, which is no choice",
            f"Set it to {', '.join(choices)}, or unset it to let epibackup choose.",
        )
    return Origin(value) if value else None


@dataclass(frozen=True)
class _Cli:
    path: Path
    version: str
    origin: Origin
    reason: str


class _Selection:
    def __init__(self, forced: Origin | None) -> None:
        self._forced = forced
        self._findings = Findings()
        self._embedded = EmbeddedCli()

    def find(self) -> Engine | None:
        cli = self.find_cli()
        return self.with_provider(cli) if cli else None

    def find_cli(self) -> _Cli | None:
        if self._allows(Origin.PATH) and (cli := self._cli_on_path()):
            return cli
        if self._allows(Origin.EMBEDDED) and self._embedded.is_sound():
            return self._embedded_cli("it is built")
        if self._allows(Origin.INSTALLER) and downloads.installed_cli().exists():
            return self._installed_cli("Pulumi's own installer fetched it")
        return None

    def obtain_cli(self, report: Report) -> _Cli:
        if self._allows(Origin.INSTALLER) and (cli := self._run_installer(report)):
            return cli
        self._embedded.build(report)
        return self._embedded_cli("it was built")

    def with_provider(self, cli: _Cli) -> Engine | None:
        """Complete an engine with the provider that is at hand; None if that is not decided."""
        if self._forced is Origin.EMBEDDED:
            return _engine(cli, Origin.EMBEDDED)
        if machine.find_on_path("pulumi-resource-command"):
            return _engine(cli, Origin.PATH)
        if downloads.installed_plugin():
            return _engine(cli, Origin.PLUGIN)
        return _engine(cli, Origin.EMBEDDED) if self._findings.recall(_PLUGIN) else None

    def obtain_provider(self, cli: _Cli, report: Report) -> Engine:
        report(f"fetching Pulumi's command plugin {pins.COMMAND_PROVIDER} (a minute at most)")
        try:
            downloads.install_plugin(cli.path)
        except downloads.NotReachableError as error:
            self._findings.remember(_PLUGIN, str(error))
            report(f"{error}; using the embedded one")
            return _engine(cli, Origin.EMBEDDED)
        return _engine(cli, Origin.PLUGIN)

    def _allows(self, origin: Origin) -> bool:
        return self._forced in (None, origin)

    def _cli_on_path(self) -> _Cli | None:
        """Return the CLI on PATH, unless it is too old or the embedded one."""
        found = machine.find_on_path("pulumi")
        version = machine.cli_version(found) if found else None
        if found and version and machine.is_new_enough(version):
            return _Cli(found, version, Origin.PATH, f"{found} is on PATH and new enough")
        if self._forced is Origin.PATH:
            oldest = ".".join(map(str, pins.OLDEST_CLI))
            raise EngineError(
                _why_not_path(found, version),
                f"Install Pulumi {oldest} or newer, or unset {FORCE_VARIABLE}.",
            )
        return None

    def _embedded_cli(self, why: str) -> _Cli:
        folder = launchers.engine_folder(self._embedded.executable)
        found = machine.find_on_path("pulumi")
        because = (
            f"{FORCE_VARIABLE} asks for it"
            if self._forced
            else _why_not_path(found, machine.cli_version(found) if found else None)
        )
        reason = f"{why}, and {because}"
        return _Cli(folder / "pulumi", pins.EMBEDDED_CLI, Origin.EMBEDDED, reason)

    def _run_installer(self, report: Report) -> _Cli | None:
        known = None if self._forced else self._findings.recall(_CLI)
        if known:
            return None
        report(f"fetching Pulumi {pins.SDK} with Pulumi's own installer (5 minutes at most)")
        try:
            downloads.install_cli()
        except downloads.NotReachableError as error:
            if self._forced:
                raise EngineError(
                    str(error), f"Unset {FORCE_VARIABLE} to let epibackup build an engine."
                ) from error
            self._findings.remember(_CLI, str(error))
            report(f"{error}; building the CLI from its Go modules instead")
            return None
        return self._installed_cli("Pulumi's own installer fetched it")

    @staticmethod
    def _installed_cli(reason: str) -> _Cli:
        return _Cli(downloads.installed_cli(), pins.SDK, Origin.INSTALLER, reason)


def _why_not_path(found: Path | None, version: str | None) -> str:
    if found is None:
        return "there is no pulumi on PATH"
    if version is None:
        return f"{found} does not tell its version"
    return f"{found} is too old ({version})"


def _engine(cli: _Cli, provider: Origin) -> Engine:
    entries = []
    if cli.origin is not Origin.PATH:
        entries.append(cli.path.parent)
    elif not machine.has_language_host(cli.path):
        entries.append(launchers.language_host_folder())
    if provider is Origin.EMBEDDED:
        entries.append(launchers.provider_folder())
    return Engine(
        pulumi=cli.path,
        version=cli.version,
        origin=cli.origin,
        reason=cli.reason,
        provider_origin=provider,
        path_entries=tuple(entries),
    )
