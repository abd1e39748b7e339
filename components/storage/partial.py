"""Names of unfinished archives, on targets that have folders."""

import os
import re
import secrets
import socket

PARTIAL_SUFFIX = ".partial"
PARTIAL = re.compile(r"\..+-[0-9]+-[0-9a-f]{8}\.partial")

ABANDONED_SECONDS = 24 * 3600
"""Where nothing else tells whether a writer lives: how long one may write nothing."""


def partial_name(name: str) -> str:
    """A hidden name for an archive on its way, with its host, process and chance in it."""
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return f".{name}-{owner}{PARTIAL_SUFFIX}"
