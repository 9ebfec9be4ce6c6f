# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings weights to one host over the long way and from there to the others."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import distribution


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.weights_distribution."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_async = False
    _VALID_ARGS = frozenset(("weights", "source", "width", "timeout_s", "manifest"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "weights": {"type": "dict", "required": True}, "source": {"type": "str", "required": True}, "width": {"type": "int", "default": 2},
            "timeout_s": {"type": "int", "default": 86400}, "manifest": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"}})
        if args["width"] < 1:
            return {"failed": True, "msg": "width must be at least 1: so many hosts fetch from one at the same time"}
        if self._task.check_mode:
            # What would be downloaded is said by the module weights, host by host.
            return {"changed": False, "transfers": []}
        transfers, paths = [], {}
        for host, wanted in args["weights"].items():
            for path in wanted:
                paths.setdefault(path, []).append(host)
        for path, hosts in paths.items():
            source = "%s/%s" % (args["source"].rstrip("/"), path.rstrip("/").rpartition("/")[2])
            one = distribution.Distribution(self, task_vars["hostvars"], path, dict(args, source=source))
            one.run(hosts)
            transfers += one.transfers
            for problem in one.problems:
                self._display.warning(f"{problem}; this host is not served by others")
        return {"changed": bool(transfers), "transfers": transfers}
