# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may open a connection to the instances of a host: vLLM serves /metrics, /tokenize and /invocations even to who has no API key. Pure."""

from __future__ import annotations

import ipaddress

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import FIREWALL_TABLE

ACCESS = ("gateways", "everyone")

_UNIT = """\
# Made by vllm_ascend.fleet: who reaches the ports of the instances. docs/gateway.md tells how to change it.
[Unit]
Description=Only the gateways of the fleet reach the instances of vLLM-Ascend
# Its start, reload and stop flush all tables, ours as well.
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/env nft "{rules}"
ExecReload=/usr/bin/env nft "{rules}"
ExecStop=-/usr/bin/env nft "delete table {table}"

[Install]
WantedBy=multi-user.target
"""


def problems(access, scrapers):
    """What is wrong with the settings. [sentence]"""
    found = []
    if access not in ACCESS:
        found.append("fleet_instance_access must be %s, not '%s'" % (" or ".join(ACCESS), access))
    return found + ["fleet_metrics_scrapers: '%s' is no address and no network such as 192.0.2.7 or 192.0.2.0/24" % address
                    for address in scrapers if not is_network(address)]


def is_network(address):
    """Whether a text is an address or a network, and not a name."""
    try:
        ipaddress.ip_network(str(address), strict=False)
    except ValueError:
        return False
    return True


def ports(plan, surveys, host):
    """The ports at which the instances of a host serve, after this run. Sorted numbers."""
    entries = list(((plan["hosts"].get(host) or {}).get("instances")) or ())
    known = set(entry["name"] for entry in entries)
    for name, found in sorted(((surveys.get(host) or {}).get("instances") or {}).items()):
        if name not in known and (found.get("manifest") or {}).get("port"):
            entries.append(found["manifest"])
    return sorted(set(entry["port"] for entry in entries if not spanning.is_member(entry)))


def unit(wanted, sources):
    """The unit that puts the rules in force.

    :param wanted: ports. :param sources: addresses and networks that may connect; the host itself always may.
    :returns: its text; None when there is no port to guard.
    """
    if not wanted:
        return None
    # Only what opens a connection is looked at: a stream that runs is never cut.
    opening = "tcp dport { %s } tcp flags & (syn | ack) == syn" % ", ".join(map(str, sorted(wanted)))
    networks = sorted(set(ipaddress.ip_network(str(source), strict=False) for source in sources), key=lambda network: (network.version, network))
    rules = ["iif lo accept"]
    for version, word in ((4, "ip"), (6, "ip6")):
        # The interval set takes no overlapping elements.
        those = [str(network) for network in ipaddress.collapse_addresses(network for network in networks if network.version == version)]
        if those:
            rules.append("%s %s saddr { %s } accept" % (opening, word, ", ".join(each.replace("/32", "").replace("/128", "") for each in those)))
    rules.append(opening + " reject with tcp reset")
    # One transaction: at no moment is there half a table, or none.
    text = "table {0}; delete table {0}; table {0} {{ chain input {{ type filter hook input priority filter; policy accept; {1}; }}; }}".format(
        " ".join(FIREWALL_TABLE), "; ".join(rules))
    return _UNIT.format(rules=text, table=" ".join(FIREWALL_TABLE))
