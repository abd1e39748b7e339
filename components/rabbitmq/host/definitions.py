"""Definitions as values: made importable, chosen, renamed, compared."""

import json
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from host.mapping import mapped

Definitions = Dict[str, List[Dict[str, Any]]]

KEYS: Dict[str, Tuple[str, ...]] = {
    "users": ("name",),
    "vhosts": ("name",),
    "permissions": ("user", "vhost"),
    "topic_permissions": ("user", "vhost", "exchange"),
    "parameters": ("vhost", "component", "name"),
    "global_parameters": ("name",),
    "policies": ("vhost", "name"),
    "exchanges": ("vhost", "name"),
    "queues": ("vhost", "name"),
    "bindings": ("vhost", "source", "destination", "destination_type", "routing_key", "arguments"),
}
"""What tells the objects of a kind apart; in the order in which RabbitMQ imports them."""

LEFT_BY_IMPORT = ("exchanges", "queues")
"""An import leaves these as they are where they exist, and says nothing
(rabbit_definitions:add_queue, add_exchange). Vhosts, too, but no message depends on their
descriptions, and the one of / changed from version to version: see `described_otherwise`."""

MOST_QUEUES = 500
"""As many queues are named in a summary; it is part of the run's state and of its manifest."""


class Difference(NamedTuple):
    """What saved and live definitions do not have in common.

    missing: saved and not live. changed: live with another value. extra: live and not saved.
    Kind to objects; the saved ones in `changed`.
    """

    missing: Definitions
    changed: Definitions
    extra: Definitions

    def conflicts(self) -> List[str]:
        """The names of what differs and would be left as it is by an import."""
        return [
            name_of(kind, item) for kind in LEFT_BY_IMPORT for item in self.changed.get(kind, [])
        ]

    def lacking(self) -> List[str]:
        """The names of all that is missing or differs."""
        return [
            name_of(kind, item)
            for kind in KEYS
            for item in self.missing.get(kind, []) + self.changed.get(kind, [])
        ]


def importable(exported: Dict[str, Any]) -> Dict[str, Any]:
    """An export as RabbitMQ takes it back, in an order that does not change.

    `rabbitmqctl export_definitions` writes some maps as lists of pairs, which it then refuses to
    import (rabbitmq-server issue 14793, seen with 3.10.8), and of vhosts without a default type
    of queues that it is "undefined", which keeps a node from starting (issue 10468).
    """
    made: Dict[str, Any] = {key: value for key, value in exported.items() if key not in KEYS}
    for kind in KEYS:
        items = [dict(item) for item in exported.get(kind) or []]
        for item in items:
            if kind in ("parameters", "global_parameters") and "value" in item:
                item["value"] = _objects(item["value"])
            for key in ("limits", "definition"):
                if key in item:
                    item[key] = _objects(item[key]) or {}
            metadata = item.get("metadata")
            if kind == "vhosts" and isinstance(metadata, dict):
                item["metadata"] = {
                    key: [] if key == "tags" and not value else value
                    for key, value in metadata.items()
                    if (key, value) != ("default_queue_type", "undefined")
                }
        made[kind] = sorted(items, key=lambda item: _text(item))
    return made


def _objects(value: Any) -> Any:
    """Lists of pairs as objects, at every depth."""
    if isinstance(value, dict):
        return {key: _objects(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(_is_pair(inner) for inner in value):
        return {key: _objects(inner) for key, inner in value}
    return [_objects(inner) for inner in value]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def chosen(
    saved: Dict[str, Any], vhosts: Optional[Set[str]], rename: Dict[str, str], names: Dict[str, str]
) -> Definitions:
    """What is to be restored, under the names it is to have.

    vhosts: those chosen, with the users who may use them; None for everything.
    rename: from a vhost's saved name to its new one. names: from hosts' old names to new ones.
    Left out is what no import makes: what RabbitMQ itself names `amq.…`, and bindings to that or
    to queues that belonged to one connection.
    """
    made: Definitions = {kind: [] for kind in KEYS}
    allowed = [item for item in saved["permissions"] if item["vhost"] in (vhosts or ())]
    users = {item["user"] for item in allowed}
    for kind in KEYS:
        for item in saved[kind]:
            if vhosts is not None and not _belongs(kind, item, vhosts, users):
                continue
            if kind in ("queues", "exchanges") and item["name"].startswith("amq."):
                continue
            if kind == "global_parameters" and item["name"].startswith("internal"):
                continue
            made[kind].append(_renamed(kind, item, rename, names))
    known = {
        (kind[:-1], item["vhost"], item["name"])
        for kind in ("queues", "exchanges")
        for item in made[kind]
    }
    made["bindings"] = [item for item in made["bindings"] if _has_ends(item, known)]
    return made


def _belongs(kind: str, item: Dict[str, Any], vhosts: Set[str], users: Set[str]) -> bool:
    if kind == "users":
        return item["name"] in users
    return item.get("name" if kind == "vhosts" else "vhost") in vhosts


def _renamed(
    kind: str, item: Dict[str, Any], rename: Dict[str, str], names: Dict[str, str]
) -> Dict[str, Any]:
    key = "name" if kind == "vhosts" else "vhost"
    made = dict(item)
    if key in made:
        made[key] = rename.get(made[key], made[key])
    if kind == "policies":
        made["definition"] = _mapped_nodes(made["definition"], names)
    if kind == "parameters" and isinstance(made["value"], dict) and "definition" in made["value"]:
        definition = _mapped_nodes(made["value"]["definition"], names)
        made["value"] = dict(made["value"], definition=definition)
    if kind == "global_parameters" and made["name"] == "cluster_name":
        made["value"] = mapped(str(made["value"]), names)
    return made


def _mapped_nodes(definition: Any, names: Dict[str, str]) -> Any:
    """A policy with the nodes that it names (ha-mode: nodes) under their new names."""
    if not isinstance(definition, dict) or not isinstance(definition.get("ha-params"), list):
        return definition
    nodes = [mapped(str(node), names) for node in definition["ha-params"]]
    return dict(definition, **{"ha-params": nodes})


def _has_ends(binding: Dict[str, Any], known: Set[Tuple[str, str, str]]) -> bool:
    vhost, source, destination = binding["vhost"], binding["source"], binding["destination"]
    kind = binding["destination_type"]
    has_source = source.startswith("amq.") or ("exchange", vhost, source) in known
    predefined = kind == "exchange" and destination.startswith("amq.")
    return has_source and (predefined or (kind, vhost, destination) in known)


def difference(wanted: Definitions, live: Dict[str, Any]) -> Difference:
    """What live definitions lack of the wanted ones, have otherwise, and have besides."""
    found = Difference({}, {}, {})
    for kind in KEYS:
        there = {_key(kind, item): item for item in live[kind]}
        asked = {_key(kind, item): item for item in wanted[kind]}
        for key, item in asked.items():
            if key not in there:
                found.missing.setdefault(kind, []).append(item)
            elif not _same(kind, item, there[key]):
                found.changed.setdefault(kind, []).append(item)
        extra = [item for key, item in there.items() if key not in asked]
        if extra:
            found.extra[kind] = extra
    return found


def described_otherwise(wanted: Definitions, live: Dict[str, Any]) -> List[str]:
    """The vhosts that have another description, other tags or another type of queues."""
    there = {item["name"]: _plain("vhosts", item) for item in live["vhosts"]}
    return [
        item["name"]
        for item in wanted["vhosts"]
        if item["name"] in there and _plain("vhosts", item) != there[item["name"]]
    ]


def _key(kind: str, item: Dict[str, Any]) -> Tuple[str, ...]:
    return tuple(_text(item.get(key) or "") for key in KEYS[kind])


def _same(kind: str, one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    """Whether two objects are the same for RabbitMQ: what is empty may be missing, and versions
    before 3.9 write tags as one text."""
    if kind == "vhosts":
        return True
    first, second = _plain(kind, one), _plain(kind, other)
    if "type" not in first or "type" not in second:  # of queues, since 3.8
        first.pop("type", None)
        second.pop("type", None)
    return first == second


def _plain(kind: str, item: Dict[str, Any]) -> Dict[str, Any]:
    made = dict(item)
    if kind == "vhosts":
        made.pop("limits", None)  # they are parameters, too
        made.pop("tracing", None)  # not exported since 3.8
        metadata = made.get("metadata") or {}
        made["metadata"] = {key: value for key, value in metadata.items() if value}
    if kind == "users":
        tags = made.get("tags") or []
        made["tags"] = sorted(tags.split(",") if isinstance(tags, str) else tags)
    if kind == "exchanges" and not made.get("internal"):
        made.pop("internal", None)
    return {key: value for key, value in made.items() if value not in (None, "", [], {})}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def name_of(kind: str, item: Dict[str, Any]) -> str:
    """An object's name for people; no secret is in it."""
    if kind == "bindings":
        return "binding %s → %s %s (%s) in vhost %s" % (
            item["source"], item["destination_type"], item["destination"],
            item.get("routing_key") or "no key", item["vhost"],
        )  # fmt: skip
    single = {"policies": "policy"}.get(kind, kind[:-1].replace("_", " "))
    names = [str(item[key]) for key in KEYS[kind] if key != "vhost"]
    within = " in vhost %s" % item["vhost"] if "vhost" in KEYS[kind] else ""
    return "%s %s%s" % (single, " ".join(names), within)


def summary(
    saved: Dict[str, Any], counts: Optional[Dict[Tuple[str, str], Optional[int]]]
) -> Dict[str, Any]:
    """What definitions hold, without anything secret: numbers, vhosts, queues.

    counts: persistent messages of durable queues; None where the node did not say.
    """
    queues: Dict[str, List[Dict[str, Any]]] = {item["name"]: [] for item in saved["vhosts"]}
    few = len(saved["queues"]) <= MOST_QUEUES
    for item in saved["queues"] if few else []:
        arguments = item.get("arguments") or {}
        queue = {
            "name": item["name"],
            "durable": item["durable"],
            "type": item.get("type") or arguments.get("x-queue-type") or "classic",
            "messages": (counts or {}).get((item["vhost"], item["name"])),
        }
        queues.setdefault(item["vhost"], []).append(queue)
    return {
        "counts": {kind: len(saved[kind]) for kind in KEYS},
        "vhosts": queues,
        "queues_listed": few,
        "messages": sum(count or 0 for count in counts.values()) if counts is not None else None,
    }
