"""Which engine is chosen, and what is done to get one."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import downloads, launchers, pins, selection
from engine.embedded import EmbeddedCli
from engine.selection import FORCE_VARIABLE, Origin

Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def bare_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_engine: engine.Engine
) -> None:
    """A home without any engine, and a PATH with nothing but the system's programs."""
    for name in (FORCE_VARIABLE, "PULUMI_HOME", "PULUMI_PYTHON_CMD", "PULUMI_SKIP_UPDATE_CHECK",
                 "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Puts a program on PATH that answers as a CLI of some version does."""

    def make(version: str = "", *, name: str = "pulumi") -> Path:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def official_plugin(tmp_path: Path) -> Path:
    """An installed official `command` plugin."""
    folder = tmp_path / "home" / ".pulumi" / "plugins"
    folder /= f"resource-command-v{pins.COMMAND_PROVIDER}"
    folder.mkdir(parents=True)
    plugin = folder / "pulumi-resource-command"
    plugin.write_text("")
    return plugin


@pytest.fixture
def built(tmp_path: Path, embedded_engine: engine.Engine) -> EmbeddedCli:
    """The embedded CLI, brought into this home's cache as from another machine."""
    cli = EmbeddedCli()
    cli.folder.mkdir(parents=True)
    checksum = subprocess.run(
        ["sha256sum", embedded_engine.pulumi], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    shutil.copy2(embedded_engine.pulumi, cli.executable)
    (cli.folder / "pulumi.sha256").write_text(f"{checksum}  pulumi\n")
    return cli


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network in which nothing of Pulumi is reached, at once."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")


def silent(_: str) -> None:
    """Report to nobody."""


def test_a_bare_machine_has_no_engine(tmp_path: Path) -> None:
    assert engine.find() is None


def test_a_cli_on_path_that_is_new_enough_is_used_with_the_official_plugin(
    install: Install, official_plugin: Path
) -> None:
    pulumi = install("v3.250.0")
    install(name="pulumi-language-python")
    found = engine.find()
    assert found
    assert (found.pulumi, found.version, found.origin) == (pulumi, "3.250.0", Origin.PATH)
    assert found.provider_origin is Origin.PLUGIN
    assert found.path_entries == ()
    assert str(pulumi) in found.reason


@pytest.mark.parametrize("version", ["v3.249.9", "v2.999.0", "not a version", ""])
def test_a_cli_on_path_that_is_too_old_or_strange_is_not_used(
    version: str, install: Install, official_plugin: Path
) -> None:
    install(version)
    assert engine.find() is None


@pytest.mark.parametrize("version", ["v3.250.0-alpha.1", "v3.300.1", "v4.0.0"])
def test_a_newer_cli_and_a_prerelease_are_used(
    version: str, install: Install, official_plugin: Path
) -> None:
    install(version)
    found = engine.find()
    assert found
    assert found.version == version[1:]


def test_a_cli_on_path_comes_before_a_built_one_and_a_built_one_before_an_old_one(
    install: Install, built: EmbeddedCli, official_plugin: Path
) -> None:
    install("v3.250.0")
    found = engine.find()
    assert found
    assert found.origin is Origin.PATH

    old = install("v3.100.0")
    found = engine.find()
    assert found
    assert found.origin is Origin.EMBEDDED
    assert found.version == pins.EMBEDDED_CLI
    assert f"{old} is too old (3.100.0)" in found.reason


def test_the_choice_can_be_forced(
    install: Install, built: EmbeddedCli, official_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("v3.250.0")
    monkeypatch.setenv(FORCE_VARIABLE, "embedded")
    found = engine.find()
    assert found
    assert (found.origin, found.provider_origin) == (Origin.EMBEDDED, Origin.EMBEDDED)
    assert FORCE_VARIABLE in found.reason

    fetched = downloads.installed_cli()
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    monkeypatch.setenv(FORCE_VARIABLE, "installer")
    found = engine.find()
    assert found
    assert (found.pulumi, found.origin) == (fetched, Origin.INSTALLER)

    monkeypatch.setenv(FORCE_VARIABLE, "path")
    install("v3.1.0")
    with pytest.raises(engine.EngineError) as caught:
        engine.find()
    assert "3.1.0" in caught.value.message
    assert "3.250.0" in caught.value.hint

    monkeypatch.setenv(FORCE_VARIABLE, "best")
    with pytest.raises(engine.EngineError) as caught:
        engine.obtain(silent)
    assert "'best'" in caught.value.message
    assert "path, embedded, installer" in caught.value.hint


def test_finding_an_engine_is_fast(
    built: EmbeddedCli, install: Install, official_plugin: Path
) -> None:
    assert engine.find()
    started = time.monotonic()
    assert engine.find()
    assert time.monotonic() - started < 0.3


def test_a_plugin_whose_download_did_not_finish_is_not_used(
    install: Install, official_plugin: Path
) -> None:
    install("v3.250.0")
    official_plugin.parent.with_name(official_plugin.parent.name + ".partial").touch()
    assert engine.find() is None


def test_a_provider_on_path_is_used_as_it_is(install: Install) -> None:
    install("v3.250.0")
    install(name="pulumi-resource-command")
    found = engine.find()
    assert found
    assert found.provider_origin is Origin.PATH


def test_an_official_cli_without_a_language_host_gets_the_embedded_one_but_no_other_cli(
    install: Install, official_plugin: Path
) -> None:
    install("v3.250.0")
    found = engine.find()
    assert found
    (folder,) = found.path_entries
    assert [entry.name for entry in folder.iterdir()] == ["pulumi-language-python"]


def test_downloads_that_cannot_be_reached_are_said_once_and_remembered(
    built: EmbeddedCli, install: Install, unreachable: None
) -> None:
    install("v3.250.0")
    # A CLI that cannot fetch the plugin.
    (Path(os.environ["PATH"].split(":")[0]) / "pulumi").write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo v3.250.0 && exit\necho "no route" >&2\nexit 1\n'
    )
    assert engine.find() is None
    said: list[str] = []
    obtained = engine.obtain(said.append)
    assert obtained.provider_origin is Origin.EMBEDDED
    assert any("no route" in sentence for sentence in said)
    assert all("\n" not in sentence for sentence in said)

    assert engine.find() == obtained
    said.clear()
    assert engine.obtain(said.append) == obtained
    assert said == []
    engine.obtain(said.append, again=True)
    assert any("no route" in sentence for sentence in said)


def test_an_installer_that_cannot_be_reached_leads_to_the_build_and_is_remembered(
    unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[str] = []

    def refuse(_: EmbeddedCli, report: selection.Report) -> None:
        builds.append("build")
        raise engine.EngineError("no module proxy", "bring one")

    monkeypatch.setattr(EmbeddedCli, "build", refuse)
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(engine.EngineError):
            engine.obtain(said.append)
    assert len([sentence for sentence in said if "installer" in sentence]) == 2
    assert any("cannot be reached" in sentence for sentence in said)
    assert builds == ["build", "build"]


def test_a_forced_installer_that_cannot_be_reached_is_an_error(
    unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORCE_VARIABLE, "installer")
    with pytest.raises(engine.EngineError) as caught:
        engine.obtain(silent)
    assert "cannot be reached" in caught.value.message
    assert FORCE_VARIABLE in caught.value.hint


def test_the_environment_puts_what_was_chosen_in_front_and_nothing_of_another_time(
    built: EmbeddedCli, install: Install, official_plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORCE_VARIABLE, "embedded")
    embedded = engine.find()
    assert embedded
    variables = embedded.environment()
    first, second, *rest = variables["PATH"].split(":")
    assert (Path(first), Path(second)) == embedded.path_entries
    assert ":".join(rest) == os.environ["PATH"]
    assert variables["PULUMI_SKIP_UPDATE_CHECK"] == "true"
    assert variables["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    assert variables["PULUMI_PYTHON_CMD"] == sys.executable

    # A shell in which that was set before an official CLI was installed.
    before = os.environ["PATH"]
    monkeypatch.delenv(FORCE_VARIABLE)
    monkeypatch.setenv("PATH", variables["PATH"])
    pulumi = install("v3.250.0")
    install(name="pulumi-language-python")
    official = engine.find()
    assert official
    assert official.pulumi == pulumi
    assert official.environment()["PATH"] == before
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in official.environment()


def test_what_a_person_has_set_is_not_overruled(
    built: EmbeddedCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORCE_VARIABLE, "embedded")
    monkeypatch.setenv("PULUMI_PYTHON_CMD", "python3.99")
    found = engine.find()
    assert found
    assert found.environment()["PULUMI_PYTHON_CMD"] == "python3.99"


def test_launchers_are_written_into_the_environment_and_again_when_they_are_stale() -> None:
    launcher = launchers.provider_folder() / "pulumi-resource-command"
    assert launcher.is_relative_to(sys.prefix)
    assert not launcher.is_relative_to(Path(sys.prefix) / "bin")
    right = launcher.read_text()
    assert sys.executable in right
    launcher.write_text("#!/bin/sh\nexec /a/python/of/another/time\n")
    launchers.provider_folder()
    assert launcher.read_text() == right
    assert os.access(launcher, os.X_OK)


def test_launchers_do_not_import_from_where_they_are_started(tmp_path: Path) -> None:
    """A stranger's project may well have a file called like something that is imported."""
    (tmp_path / "grpc.py").write_text("raise SystemExit('imported from the project')")
    launcher = launchers.language_host_folder() / "pulumi-language-python"
    with subprocess.Popen(
        [launcher, "127.0.0.1:1"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline().strip().isdigit()
        assert process.stdin
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_an_environment_that_cannot_be_written_has_its_launchers_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "system"
    prefix.write_text("no folder can be made below a file")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    assert launchers.provider_folder().is_relative_to(tmp_path / "cache")
