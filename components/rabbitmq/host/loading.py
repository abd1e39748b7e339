"""Importing definitions, comparing, and taking them back."""

import json
import os
from typing import Any, Dict, List, Optional, Set

from components.rabbitmq.host.definitions import (
    KEYS,
    Definitions,
    Difference,
    chosen,
    described_otherwise,
    difference,
    importable,
    name_of,
)
from components.rabbitmq.host.node import Node
from components.rabbitmq.host.transfer import Transfer
from host.errors import HostError
from host.service import Delivered, Restoration, Step
from host.store import write_json

PREFIX = "vhost:"
MOST_NAMES = 20
"""As many names are in a message; the rest is a number."""


class Loading:
    """The definitions' part of a restore.

    kept: the file for the definitions as they were before.
    """

    def __init__(
        self,
        node: Node,
        restoration: Restoration,
        member: Delivered,
        names: Dict[str, str],
        kept: str,
    ) -> None:
        self._restoration = restoration
        self._member = member
        self._names = names
        self._kept = kept
        self._transfer = Transfer(node, restoration.details.get("management"))
        named = restoration.options.get("parts") or []
        self._vhosts: Optional[Set[str]] = None
        if named and "definitions" not in named:
            self._vhosts = {name[len(PREFIX) :] for name in named if name.startswith(PREFIX)}
        self._rename = {
            _bare(old): _bare(new)
            for old, new in (restoration.options.get("rename") or {}).items()
            if old.startswith(PREFIX)
        }
        self._before: Optional[Dict[str, Any]] = None
        self._planned: Optional[Difference] = None

    def check_step(self, is_live: bool) -> Step:
        """The step that reads the saved definitions and, if the node answers, finds conflicts
        before anything is changed."""

        def check() -> None:
            saved = self._saved()
            if is_live:
                live = self._transfer.export()
                self._refuse_conflicts(difference(self._wanted(saved, live), live))

        text = "read the saved definitions"
        if is_live:
            text += " and look for objects that exist otherwise"
        return Step(text, check)

    def step(self) -> Step:
        """The step that imports what is missing, and compares."""
        if self._vhosts is None:
            what = "the definitions"
        else:
            what = "the definitions of vhost " + ", ".join(sorted(self._vhosts))
        for old, new in sorted(self._rename.items()):
            what += ", %s as %s" % (old, new)
        text = "import what is missing or changed of %s, export again and compare" % what
        return Step(text, self._load, self._undo)

    def _saved(self) -> Dict[str, Any]:
        try:
            with open(self._member.path, encoding="utf-8") as stream:
                saved = json.load(stream)
            if not isinstance(saved["vhosts"], list):
                raise ValueError("no list of vhosts")
        except (ValueError, KeyError, TypeError) as error:
            raise HostError(
                "the saved definitions are damaged: %s" % error,
                "restore another run; epibackup list shows them",
            ) from None
        return importable(saved)

    def _wanted(self, saved: Dict[str, Any], live: Dict[str, Any]) -> Definitions:
        wanted = chosen(saved, self._vhosts, self._rename, self._names)
        if self._vhosts is not None:
            # They belong to the whole cluster: one vhost does not bring old passwords back.
            there = {item["name"] for item in live["users"]}
            wanted["users"] = [item for item in wanted["users"] if item["name"] not in there]
        return wanted

    def _refuse_conflicts(self, found: Difference) -> None:
        conflicts = found.conflicts()
        if conflicts:
            raise HostError(
                "RabbitMQ would leave these as they are, though they differ from the saved ones: "
                + _some(conflicts),
                "remove or rename them, or restore a vhost under another name: --part vhost:NAME "
                "--rename vhost:NAME=vhost:NEW",
            )

    def _load(self) -> None:
        saved = self._saved()
        live = self._transfer.export()
        wanted = self._wanted(saved, live)
        found = difference(wanted, live)
        self._refuse_conflicts(found)
        if not found.lacking():
            self._restoration.say("all definitions are there already")
        else:
            write_json(self._kept, live)
            self._restoration.keep(self._kept)
            self._before, self._planned = live, found
            self._warn_of_hosts(found)
            self._restoration.say("importing %d objects" % len(found.lacking()))
            # The version says how to read passwords and tags (rabbit_auth_backend_internal).
            portion: Dict[str, Any] = {
                key: value for key, value in saved.items() if key not in KEYS
            }
            for kind in KEYS:
                portion[kind] = found.missing.get(kind, []) + found.changed.get(kind, [])
            self._transfer.load(portion)
            live = self._transfer.export()
            self._compare(wanted, live)
        self._tell_others(wanted, live)

    def _compare(self, wanted: Definitions, live: Dict[str, Any]) -> None:
        lacking = difference(wanted, live).lacking()
        if lacking:
            raise HostError(
                "RabbitMQ has taken the definitions without an error, but these are missing or "
                "differ: " + _some(lacking),
                "the node's log may say why: it skips queues while a cluster has fewer nodes than "
                "cluster_formation.target_cluster_size_hint",
            )

    def _tell_others(self, wanted: Definitions, live: Dict[str, Any]) -> None:
        """What the cluster has besides stays, and is named."""
        vhosts = None
        changed = described_otherwise(wanted, live)
        if changed:
            self._restoration.warn(
                "these vhosts keep the description, tags or default type of queues that they have "
                "here: " + _some(changed)
            )
        if self._vhosts is not None:
            vhosts = {self._rename.get(name, name) for name in self._vhosts}
        here = chosen(live, vhosts, {}, {})
        others = difference(wanted, here).extra
        names = [
            name_of(kind, item)
            for kind in KEYS
            for item in others.get(kind, [])
            if self._vhosts is None or kind != "users"
        ]
        if names:
            self._restoration.warn("left as it is, because the backup has no such: " + _some(names))

    def _warn_of_hosts(self, found: Difference) -> None:
        """Shovels and federation name hosts and vhosts in addresses, which may hold passwords."""
        names = [
            name_of("parameters", item)
            for item in found.missing.get("parameters", [])
            if item["component"] in ("shovel", "federation-upstream")
        ]
        if names and (self._names or self._rename):
            self._restoration.warn("addresses in these are left as they were: " + _some(names))

    def _undo(self) -> None:
        """Remove what the import made, and import what it changed as it was.

        Raises HostError for what cannot be put back: a queue that has got messages stays.
        """
        if self._before is None or self._planned is None:
            return
        asked: Definitions = {kind: self._planned.missing.get(kind, []) for kind in KEYS}
        there = difference(asked, self._transfer.export())
        # What is there otherwise is not from here: somebody else has made it meanwhile.
        others = there.lacking()
        made = {
            kind: [item for item in items if name_of(kind, item) not in others]
            for kind, items in asked.items()
        }
        new_vhosts = {item["name"] for item in made["vhosts"]}
        self._transfer.delete(
            [
                [kind, *(item.get(key) for key in KEYS[kind])]
                for kind in reversed(list(KEYS))
                for item in made[kind]
                if kind == "vhosts" or item.get("vhost") not in new_vhosts
            ]
        )
        if self._planned.changed:
            self._transfer.load(self._before)
        now = self._transfer.export()
        wrong = difference(chosen(self._before, None, {}, {}), now).lacking()
        keys = {name_of(kind, item) for kind in KEYS for item in now[kind]}
        left = [
            name for kind in KEYS for name in (name_of(kind, i) for i in made[kind])
            if name in keys
        ]  # fmt: skip
        if wrong or left:
            raise HostError(
                "not put back: %s; the definitions as they were are in %s"
                % (_some(wrong + left), self._kept)
            )
        os.unlink(self._kept)
        self._before = None


def _bare(name: str) -> str:
    return name[len(PREFIX) :] if name.startswith(PREFIX) else name


def _some(names: List[str]) -> str:
    shown = "; ".join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return shown + ("; and %d more" % more if more > 0 else "")
