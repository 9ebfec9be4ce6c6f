# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names: what a misspelt one was meant to be, and the ones we give on hosts."""

from __future__ import annotations

import re

# Every container of ours carries it, with the instance's name.
INSTANCE_LABEL = "vllm-ascend-fleet.instance"
# So begin, after the prefix of all our units, the names of services that are no instance.
SERVICE = "fleet-"
FIREWALL_UNIT = "vllm-ascend-fleet-firewall.service"
FIREWALL_TABLE = ("inet", "vllm_ascend_fleet")


def did_you_mean(word, known):
    """"; did you mean 'x'?" for the nearest of the known names, or "" when none is near."""
    # Loaded where something is misspelt: hosts, which never ask, would load it with every survey.
    import difflib

    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return "; did you mean '%s'?" % near[0] if near else ""


def slug(name):
    """A model's name as part of a unit, a container and a folder: lower case, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
