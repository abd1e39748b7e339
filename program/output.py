"""What people and programs read: text and progress on stderr, `--json` documents on stdout."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.archive.collector import size_text
from components.errors import EpibackupError

console = Console(
    stderr=True,
    highlight=False,
    soft_wrap=True,
    # Where there is no terminal, rich would fold tables at 80: logs take longer lines.
    width=None if sys.stderr.isatty() or "COLUMNS" in os.environ else 160,
)
"""Everything for people. Rich heeds NO_COLOR and whether stderr is a terminal."""

STYLES = {"ok": "green", "incomplete": "yellow", "failed": "red"}


def print_json(document: object) -> None:
    """The one document of a command with --json."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    """A line for people."""
    console.print(text, markup=False)


def print_error(error: EpibackupError, as_json: bool) -> None:
    """Tell an error, and what to do."""
    if as_json:
        print_json({**error.details, "error": error.as_json()})
        return
    console.print(Text("error: ", style="bold red") + Text(error.message))
    if error.hint:
        console.print(Text("  try: ", style="bold") + Text(error.hint))


def table(*columns: str) -> Table:
    """A plain table."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STYLES.get(status, ""))


def print_run(outputs: Mapping[str, Any]) -> None:
    """The summary of a run: what was saved, what was not, where it is."""
    manifest, archive = outputs["manifest"], outputs["archive"]
    console.print(
        Text.assemble(
            f"run {outputs['run']} of {manifest['cluster']}: ", status_text(outputs["status"])
        )
    )
    checked = "read back" if archive["verified"] else "not read back"
    say(
        f"archive {archive['target']}/{outputs['archive_key']} "
        f"({size_text(archive['bytes'])}, {checked})"
    )
    console.print(services_table(manifest["services"]))
    print_missing(manifest["missing"])
    print_retention(outputs.get("retention") or {})
    for warning in archive["warnings"]:
        console.print(Text("warning: ", style="yellow") + Text(warning))


def print_retention(pruned: Mapping[str, Any]) -> None:
    """What a run has removed of older archives, and what it could not."""
    for item in pruned.get("removed", []):
        say(f"removed: {item['key']} ({size_text(item['bytes'])}): {', '.join(item['reasons'])}")
    if pruned.get("not_pruned"):
        say(f"older archives stay: {pruned['not_pruned']}")
    unknown = [
        f"{key} stays, for it cannot be read: {why}"
        for key, why in pruned.get("unknown", {}).items()
    ]
    for warning in [*pruned.get("problems", []), *unknown]:
        console.print(Text("warning: ", style="yellow") + Text(warning))


def services_table(services: Sequence[Mapping[str, Any]]) -> Table:
    """What a manifest says of its services."""
    made = table("service", "host", "status", "version", "saved")
    for service in services:
        for problem in service["problems"]:
            made.add_row(service["name"], "", status_text("failed"), "", Text(problem))
        for host in service["hosts"]:
            said = host_text(host)
            version = host["version"] or "unknown"
            made.add_row(service["name"], host["host"], status_text(host["status"]), version, said)
    return made


def host_text(host: Mapping[str, Any]) -> Text:
    """What was saved of a service on a host, or why it was not."""
    if host["error"]:
        hint = host["error"]["hint"]
        return Text(host["error"]["message"] + (f" ({hint})" if hint else ""), style="red")
    members = host["members"]
    stored = size_text(sum(member["stored_bytes"] for member in members))
    lines = [f"{len(members)} member{'s' if len(members) != 1 else ''}, {stored}"]
    contents = [member["content"] for member in members]
    databases = [content["part"] for content in contents if "database" in content]
    topics = [name for content in contents if "logs" in content for name in content["parts"]]
    for title, names in (("databases", databases), ("topics", sorted(topics))):
        if names:
            lines.append(f"{title}: {shortened(names)}")
    text = Text("\n".join(lines))
    for warning in host["warnings"]:
        text.append(f"\nwarning: {warning}", style="yellow")
    return text


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Names for a person; of very many the first, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def print_missing(missing: Sequence[Mapping[str, Any]]) -> None:
    """What the inventory has and the archive has not."""
    for item in missing:
        console.print(
            Text("not saved: ", style="yellow")
            + Text(f"{item['what']} on {', '.join(item['hosts'])}: {item['reason']}")
        )
