# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From hosts of the inventory to verdicts whether they can be talked to. Runs on the controller."""

from __future__ import annotations

from ansible.module_utils import basic
from ansible.release import __version__ as core_version

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import reachability
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import ssh_target


def reach(hosts, hostvars, task, play_context, deadline_s):
    """:returns: {host: verdict as of reachability.judge}. :raises ProbeError, AnsibleError: when nothing can be asked."""
    # paramiko takes a fifth of a second to load, and most runs never ask.
    from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import ssh_probe

    keys = task.dump_attrs()
    keys.pop("timeout", None)   # of the task, not of the connection
    targets = [ssh_target.resolve(host, ssh_target.variables(hostvars, host), keys, play_context.password, play_context.become_pass)
               for host in hosts]
    minimum = reachability.python_minimum(core_version, getattr(basic, "_PY_MIN", None))
    found = ssh_probe.probe_all(targets, deadline_s)
    return {host: reachability.judge(found[host], minimum, core_version) for host in hosts}
