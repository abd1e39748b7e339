"""The lab: throw-away clusters of real hosts on one machine.

A host is a systemd container (overlayfs on a Debian image, booted by systemd-nspawn) with an own
loopback address, an sshd and real services. The demo of `make backup`, the lab tests, the
benchmark and restore drills run on such hosts; they look to the product like an Epiphany cluster,
with the build directory that epicli would have written.

The machine needs Linux, root, and the packages that `lab.machine` installs; nothing is installed
on it for the services themselves, and nothing of its files is visible in a host.

Hosts are for tests, not for keeping anybody in: they share the machine's network and its root
user, and their services have known passwords. They listen on loopback addresses only.
"""

from lab.cluster import Cluster, Definition, HostDefinition
from lab.container import Container
from lab.errors import LabError
from lab.image import Image, Recipe, obtain_image
from lab.site import Site

__all__ = [
    "Cluster",
    "Container",
    "Definition",
    "HostDefinition",
    "Image",
    "LabError",
    "Recipe",
    "Site",
    "obtain_image",
]
