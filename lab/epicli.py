"""The build directory that epicli 2.0 would have left for a cluster of the lab."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

EPICLI_VERSION = "2.0.13"

_HEADER = """\
#
# Ansible Inventory File - Automated so do not modify
#

# Written by the lab in epicli's form; the hosts are systemd containers on this machine.

"""
_ALL_VARIABLES = """\

# Allowing 'all' since for now only Linux is supported
[all:vars]
ansible_user={user}
ansible_ssh_private_key_file={key}

# --- SSH options ---
ansible_ssh_common_args='-o StrictHostKeyChecking=no'
ansible_ssh_extra_args='-o ServerAliveInterval=60 -o ServerAliveCountMax=1'
"""


@dataclass(frozen=True)
class InventoryHost:
    """A line of the inventory; the port is written only where it is not 22: epicli has none."""

    name: str
    address: str
    groups: Sequence[str]
    port: int = 22

    @property
    def line(self) -> str:
        port = f" ansible_port={self.port}" if self.port != 22 else ""
        return f"{self.name} ansible_host={self.address}{port}"


def inventory(hosts: Sequence[InventoryHost], user: str, private_key: Path) -> str:
    """The text of an inventory: per group its hosts, then `[all:vars]`, as epicli renders it."""
    groups: dict[str, list[str]] = {}
    for host in hosts:
        for group in host.groups:
            groups.setdefault(group, []).append(host.line)
    sections = [f"\n[{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items()]
    return _HEADER + "".join(sections) + "\n" + _ALL_VARIABLES.format(user=user, key=private_key)


def manifest(
    cluster: str, hosts: Sequence[InventoryHost], user: str, private_key: Path
) -> list[dict[str, Any]]:
    """The documents of manifest.yml: the cluster, features, component settings, machines."""
    components = {
        component: [host for host in hosts if group in host.groups]
        for component, group in (("postgresql", "postgresql"), ("load_balancer", "haproxy"))
    }
    cluster_document = {
        "kind": "epiphany-cluster",
        "title": "Epiphany cluster Config",
        "provider": "any",
        "name": "default",
        "specification": {
            "prefix": "",
            "name": cluster,
            "admin_user": {"name": user, "key_path": str(private_key)},
            "cloud": {"k8s_as_cloud_service": False},
            "components": {
                component: {
                    "count": len(members),
                    "machines": [f"default-{host.name}" for host in members],
                    "configuration": "default",
                }
                for component, members in components.items()
            },
        },
    }
    is_replicated = len(components["postgresql"]) > 1
    machines = [
        {
            "kind": "infrastructure/machine",
            "title": "Virtual Machine Infra",
            "provider": "any",
            "name": f"default-{host.name}",
            "specification": {"hostname": host.name, "ip": host.address},
        }
        for host in hosts
    ]
    documents: list[dict[str, Any]] = [cluster_document, *_configuration(is_replicated), *machines]
    return [{**document, "version": EPICLI_VERSION} for document in documents]


def _configuration(is_replicated: bool) -> list[dict[str, Any]]:
    everywhere = ["node-exporter", "filebeat", "firewall"]
    specifications: Mapping[str, tuple[str, dict[str, Any]]] = {
        "features": (
            "Features to be enabled/disabled",
            {
                "features": [
                    {"name": name, "enabled": name not in ("keycloak", "rook")}
                    for name in ("postgresql", "haproxy", *everywhere, "keycloak", "rook")
                ]
            },
        ),
        "feature-mappings": (
            "Feature mapping to components",
            {
                "mappings": {
                    "postgresql": ["postgresql", "postgres-exporter", *everywhere],
                    "load_balancer": ["haproxy", *everywhere],
                }
            },
        ),
        "postgresql": (
            "PostgreSQL",
            {
                "extensions": {
                    "pgaudit": {"enabled": False},
                    "pgbouncer": {"enabled": False},
                    "replication": {"enabled": is_replicated},
                }
            },
        ),
        "haproxy": (
            "HAProxy",
            {
                "version": "2.2.2",
                "logs_max_days": 60,
                "self_signed_certificate_name": "self-signed-fullchain.pem",
                "self_signed_private_key_name": "self-signed-privkey.pem",
                "stats": {"enable": True, "bind_address": "127.0.0.1:9000", "uri": "/stats"},
            },
        ),
    }
    return [
        {
            "kind": f"configuration/{kind}",
            "title": title,
            "provider": "any",
            "name": "default",
            "specification": specification,
        }
        for kind, (title, specification) in specifications.items()
    ]


def write_build_directory(
    folder: Path,
    cluster: str,
    hosts: Sequence[InventoryHost],
    user: str,
    private_key: Path,
) -> None:
    """Writes inventory, manifest.yml and ansible/ into `folder`; what is there is replaced."""
    documents = manifest(cluster, hosts, user, private_key)
    all_variables = {
        "admin_user": {"name": user, "key_path": str(private_key)},
        "epiphany_version": EPICLI_VERSION,
        "is_upgrade_run": False,
        "k8s_as_cloud_service": False,
        "vault_location": f"{folder}/vault/",
    }
    files = {
        "inventory": inventory(hosts, user, private_key),
        "manifest.yml": _yaml(documents),
        "ansible/ansible.cfg": "[defaults]\nforks = 10\ninterpreter_python = auto\n",
        "ansible/group_vars/all.yml": _yaml([all_variables]),
    }
    for document in documents:
        kind = str(document["kind"])
        if kind in ("configuration/postgresql", "configuration/haproxy"):
            role = kind.removeprefix("configuration/")
            files[f"ansible/roles/{role}/vars/main.yml"] = _yaml([document])
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: a backup of the demo may be reading this very file.
        new = path.with_name(f"{path.name}.new")
        new.write_text(text)
        new.replace(path)


def _yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    text: str = yaml.safe_dump_all(documents, explicit_start=True, sort_keys=False)
    return text
