"""Real PostgreSQL servers on hosts of the lab, in the layouts of Epiphany clusters."""

from lab.services.postgresql.comparison import differences, fingerprint
from lab.services.postgresql.data import (
    ALL_DATABASES,
    PLAIN_DATABASES,
    Database,
    clear,
    fill,
    fill_bulk,
)
from lab.services.postgresql.layouts import Layout, debian_layout, pgdg_layout, scl_layout
from lab.services.postgresql.load import WriteLoad, highest_number
from lab.services.postgresql.server import PostgreSQL
from lab.services.postgresql.versions import install_version

__all__ = [
    "ALL_DATABASES",
    "PLAIN_DATABASES",
    "Database",
    "Layout",
    "PostgreSQL",
    "WriteLoad",
    "clear",
    "debian_layout",
    "differences",
    "fill",
    "fill_bulk",
    "fingerprint",
    "highest_number",
    "install_version",
    "pgdg_layout",
    "scl_layout",
]
