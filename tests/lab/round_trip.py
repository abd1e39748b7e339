"""What a run to any target that is not a folder has to do."""

from typing import Any

from lab import Site
from lab.services.postgresql import differences
from tests.lab.product import Product


def goes_and_comes_back(epibackup: Product, site: Site) -> dict[str, Any]:
    """A backup to the target, listed, shown and restored after a loss; returns the run."""
    before = site.fingerprint()
    made = epibackup.backup()
    assert made["status"] == "ok"
    assert made["archive"]["verified"] is True
    assert epibackup.archives() == [], "nothing is kept on this machine"

    (listed,) = epibackup.json("list")["runs"]
    assert (listed["run"], listed["bytes"]) == (made["run"], made["archive"]["bytes"])
    assert epibackup.json("show", made["run"])["manifest"] == made["manifest"]

    for balancer in site.load_balancers:
        balancer.destroy()
    epibackup.restore("latest", "--service", "haproxy")
    assert differences(before, site.fingerprint()) == []
    return made
