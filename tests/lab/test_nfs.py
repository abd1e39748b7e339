"""The product with NFS as its target: a real cluster, a real NFS server, and a mount that dies."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Site
from lab.services.faulty_mount import KIND, FaultyMount, require_fuse
from lab.services.nfs import NfsServer, require_nfs_server
from tests.lab.product import Product, product
from tests.lab.round_trip import goes_and_comes_back

RUN = "20261122T013000Z"
LIMIT_SECONDS = 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NfsServer]:
    require_nfs_server(print)
    with NfsServer(tmp_path / "nfs", tmp_path / "export") as running:
        yield running


@pytest.fixture
def epibackup(site: Site, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-nfs") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def on_server(server: NfsServer) -> dict[str, Any]:
    ports = {"port": server.port, "mount_port": server.mount_port}
    return {"target": server.location, "nfs": {**ports, "timeout_seconds": LIMIT_SECONDS}}


def stored(folder: Path) -> list[str]:
    """All files of a folder, unfinished ones included."""
    return [path.name for path in folder.iterdir()]


def test_a_run_goes_to_the_export_and_comes_back_from_there(
    epibackup: Product, clean_site: Site, server: NfsServer
) -> None:
    epibackup.configure(**on_server(server))
    made = goes_and_comes_back(epibackup, clean_site)
    assert stored(server.export) == [made["archive_key"]]


def test_a_server_that_says_nothing_ends_the_run_before_anything_happens(
    epibackup: Product, site: Site, server: NfsServer
) -> None:
    epibackup.configure(**on_server(server))
    server.pause()
    error = epibackup.backup("--run", RUN, "--service", "haproxy", code=8)["error"]
    assert error["code"] == "target_unreachable"
    assert f"no answer for {LIMIT_SECONDS} seconds" in error["message"]
    server.resume()
    assert epibackup.backup("--run", RUN, "--service", "haproxy")["run"] == RUN


def test_a_mount_that_dies_ends_the_run_and_the_same_run_goes_on_when_it_lives(
    epibackup: Product, site: Site, tmp_path: Path
) -> None:
    require_fuse(print)
    with FaultyMount(tmp_path / "share") as mounted:
        options = {"timeout_seconds": LIMIT_SECONDS}
        epibackup.configure(target=str(mounted.path), directory=options)
        with mounted.fault("fsync", "block"):  # the check before a run has none of it
            start = time.monotonic()
            error = epibackup.backup("--run", RUN, "--service", "haproxy", code=8)["error"]
            assert time.monotonic() - start < 120
        assert (
            f"mounted by {KIND}, has not answered for {LIMIT_SECONDS} seconds" in (error["message"])
        )
        assert [name for name in stored(mounted.served) if not name.startswith(".")] == []
        done = epibackup.backup("--run", RUN, "--service", "haproxy")
        assert (done["run"], done["archive"]["verified"]) == (RUN, True)
        assert done["archive_key"] in stored(mounted.served)
        epibackup.json("restore", RUN, "--dry-run", "--service", "haproxy")
