"""Names and addresses in saved configuration, for a restore onto other hosts."""

import re
from typing import Any, Dict, List


def replacements(host_map: List[Dict[str, Any]]) -> Dict[str, str]:
    """Old names and addresses to new ones, from a restore's `host_map`; those that stay the same
    are left out, and those that several old hosts have (a bridge's address, say)."""
    found: Dict[str, List[str]] = {}
    for pair in host_map:
        old, new = pair["old"], pair["new"]
        known = {
            old["name"]: new["name"],
            old.get("hostname"): new["hostname"],
            old.get("fqdn"): new["fqdn"],
        }
        for address in old.get("addresses", []):
            known[address] = new["addresses"][0] if new["addresses"] else new["address"]
        known[old["address"]] = new["address"]
        for before, after in known.items():
            if before:
                found.setdefault(before, []).append(after)
    return {
        before: after[0]
        for before, after in found.items()
        if len(after) == 1 and after[0] != before and before != "localhost"
    }


def mapped(text: str, names: Dict[str, str]) -> str:
    """A text with old names and addresses, where they stand as whole words, replaced."""
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = r"(?<![\w.-])(?:%s)(?![\w.-])" % "|".join(map(re.escape, longest_first))
    return re.sub(pattern, lambda match: names[match.group(0)], text)
