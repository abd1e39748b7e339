"""The product as a user runs it, against a cluster of the lab."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lab import Cluster

ROOT = Path(__file__).parents[2]
EPIBACKUP = Path(sys.executable).with_name("epibackup")


class Product:
    """`epibackup` with a stack, a backend and a target of its own.

    folder: where all that is kept; the target is its folder `target`.
    """

    def __init__(self, cluster: Cluster, folder: Path, stack: str) -> None:
        self.cluster = cluster
        self.stack = stack
        self.target = folder / "target"
        self.target.mkdir(mode=0o700)
        (folder / "backend").mkdir()
        self.environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
            "PULUMI_HOME": str(folder / "pulumi"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "200",
        }
        self.environment.pop("EPIBACKUP_RUN_ID", None)
        self.stack_file = ROOT / "stacks" / f"Pulumi.{stack}.yaml"
        # Test files run at the same time: two of them must not write one stack's configuration.
        assert not self.stack_file.exists(), f"the stack {stack} belongs to another test"
        self.started: list[subprocess.Popen[str]] = []
        self.configure()

    def configure(self, **options: Any) -> None:
        """Write the stack's configuration: build, target, host keys and these options."""
        values = {
            "build": str(self.cluster.build_directory),
            "target": str(self.target),
            "host_keys": self.pinned_keys(),
            **options,
        }
        known = yaml.safe_load(self.stack_file.read_text()) if self.stack_file.exists() else {}
        known["config"] = {f"epibackup:{name}": value for name, value in values.items()}
        self.stack_file.write_text(yaml.safe_dump(known))

    def pinned_keys(self) -> dict[str, str]:
        """The hosts' real keys."""
        return {
            name: host.host_key("ed25519").with_suffix(".pub").read_text().strip()
            for name, host in self.cluster.hosts.items()
        }

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of epibackup to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line; flags without a command are a backup's."""
        return [str(EPIBACKUP), *arguments, "-s", self.stack]

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command of epibackup, in a process group of its own; killed if it outlives the
        test."""
        running = subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        self.started.append(running)
        return running

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json; returns its document. Fails if the exit code is another."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        made = json.loads(done.stdout)
        assert isinstance(made, dict)
        return made

    def backup(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Make a run; returns its document."""
        return self.json("backup", *arguments, code=code)

    def restore(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Restore, confirmed; returns its document."""
        return self.json("restore", *arguments, "--yes", code=code)

    def give(self, archive: Path) -> Path:
        """Put a copy of an archive on the target, as if a run had made it; returns its path."""
        return Path(shutil.copy(archive, self.target))

    def archives(self) -> list[str]:
        """What is on the target, unfinished files included."""
        return sorted(path.name for path in self.target.iterdir())

    def published(self) -> list[str]:
        """What a person sees on the target."""
        return [name for name in self.archives() if not name.startswith(".")]

    def pulumi(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the Pulumi CLI by hand."""
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "-s", self.stack],
            cwd=ROOT,
            env={**self.engine_environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @functools.cached_property
    def engine_environment(self) -> dict[str, str]:
        """What a user's shell has after `eval "$(epibackup engine env)"`."""
        done = subprocess.run(
            ["bash", "-c", 'eval "$("$0" engine env)" && env -0', str(EPIBACKUP)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)

    def catalog(self) -> list[dict[str, Any]]:
        """The catalog, as `pulumi stack output` prints it."""
        done = self.pulumi("stack", "output", "catalog", "--json")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert isinstance(made, list)
        return made

    def leftovers(self) -> dict[str, list[str]]:
        """What is left on the hosts: snapshots and deliveries, by host."""
        folder = "/var/lib/epibackup"
        find = ["find", f"{folder}/snapshots", f"{folder}/restore", "-mindepth", "2"]
        return {
            name: lines
            for name, host in self.cluster.hosts.items()
            if (lines := host.run(find, check=False).stdout.split())
        }


def build_directory(folder: Path, cluster: Cluster, groups: Mapping[str, list[str]]) -> Path:
    """A build directory of one's own making: some hosts of a cluster in other groups."""
    folder.mkdir()
    lines = []
    for group, names in groups.items():
        lines.append(f"[{group}]")
        for name in names:
            host = cluster.hosts[name]
            lines.append(f"{name} ansible_host={host.address} ansible_port={host.ssh_port}")
    lines += [
        "[all:vars]",
        "ansible_user=operations",
        f"ansible_ssh_private_key_file={cluster.private_key}",
    ]
    (folder / "inventory").write_text("\n".join(lines) + "\n")
    return folder


def rewrite_member(archive: Path, member: str, data: bytes) -> None:
    """Change a member of a zip and the manifest with it, so that every checksum is right: what a
    fault of the program, or somebody who means harm, could have stored."""
    with zipfile.ZipFile(archive) as old:
        stored = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(stored["manifest.json"])
    for service in manifest["services"]:
        for host in service["hosts"]:
            for found in host["members"]:
                if found["path"] == member:
                    digest = hashlib.sha256(data).hexdigest()
                    found["parts"] = [{"path": member, "bytes": len(data), "sha256": digest}]
                    found["stored_bytes"] = len(data)
                    stored[member] = data
    stored["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(archive, "w") as new:
        for name, content in stored.items():
            new.writestr(name, content)


@contextmanager
def product(cluster: Cluster, folder: Path, stack: str) -> Iterator[Product]:
    """A product with a stack of its own, which is forgotten afterwards."""
    made = Product(cluster, folder, stack)
    try:
        yield made
    finally:
        for running in made.started:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.communicate()
        made.stack_file.unlink(missing_ok=True)
