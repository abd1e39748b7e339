"""RESTORE.md: how to get everything back without epibackup."""

from importlib import resources

from components.archive.manifest import Manifest, Member

PATH = "RESTORE.md"

CHECK_ALL = (
    "   python3 -c \"import json; [print(p['sha256'], '', p['path']) for s in "
    "json.load(open('manifest.json'))['services'] for h in s['hosts'] for m in h['members'] "
    "for p in m['parts']]\" | sha256sum --check --quiet"
)


def restore_notes(manifest: Manifest) -> str:
    """The text for one archive, with the real names of its members."""
    lines = [
        f"# Restoring run {manifest.run} of cluster {manifest.cluster} by hand",
        "",
        f"Written by epibackup {manifest.epibackup_version}. You need `unzip` (or `tar`), `zstd`",
        "or `gzip`, `tar`, and the services' own tools; you do not need epibackup.",
        "",
        "1. Unpack the archive into a folder only root may read: it holds secrets.",
        "   `umask 077; mkdir restore; cd restore; unzip ARCHIVE.zip` or `tar xzf ARCHIVE.tar.gz`",
        "2. Check it: `manifest.json` has the SHA-256 of every stored file. All at once:",
        "",
        "   ```sh",
        CHECK_ALL,
        "   ```",
        "",
        "3. Join, decompress and use the members as below. Where a member is cut into parts, the",
        "   shell's `NAME.????` puts them in order.",
        "",
    ]
    if manifest.discarded:
        lines += [
            "Stored files of members that failed half-way, of no use: "
            + ", ".join(f"`{path}`" for path in manifest.discarded),
            "",
        ]
    for service in manifest.services:
        lines += [f"## {service.name}", ""]
        for host in service.hosts:
            for member in host.members:
                lines.append(f"- `{_command(member)}`")
            if host.error:
                lines.append(f"- {host.host}: **not saved**: {host.error.message}")
        lines += ["", _service_notes(service.name), ""]
    if manifest.missing:
        lines += ["## Not in this archive", ""]
        lines += [
            f"- {item.what} ({', '.join(item.hosts)}): {item.reason}" for item in manifest.missing
        ]
        lines.append("")
    return "\n".join(lines)


def _command(member: Member) -> str:
    """The shell command that gives a member back; names are quoted by being portable."""
    stored = member.path if len(member.parts) == 1 else f"{member.path}.????"
    if member.parts[0].path != member.path:
        stored = f"{member.path}.????"
    unpacker = {"zst": "zstd -dc", "gz": "gzip -dc"}.get(member.path.rsplit(".", 1)[-1])
    joined = f"cat {stored}" + (f" | {unpacker}" if unpacker else "")
    plain = member.path.rsplit(".", 1)[0] if unpacker else member.path
    if member.kind == "tree":
        folder = plain.removesuffix(".tar")
        return f"mkdir -p {folder} && {joined} | tar -x --numeric-owner -C {folder}"
    return f"{joined} > {plain}" if joined != f"cat {plain}" else f"less {plain}"


def _service_notes(service: str) -> str:
    """A service's own notes, from its folder."""
    notes = resources.files("components").joinpath(service, PATH)
    return notes.read_text().strip() if notes.is_file() else ""
