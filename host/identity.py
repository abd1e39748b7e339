"""How a host calls itself: what other hosts' configuration may know it by."""

import socket
from typing import Any, Dict

from host import command


def identity() -> Dict[str, Any]:
    """hostname (short), fqdn (the same where there is none), and all addresses but loopback's,
    in the order of `hostname --all-ip-addresses`."""
    name = socket.gethostname()
    listed = command.run(["hostname", "--all-ip-addresses"], check=False)
    return {
        "hostname": name.split(".")[0],
        "fqdn": socket.getfqdn(name),
        "addresses": listed.stdout.split() if listed.code == 0 else [],
    }
