# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the planned upgrade on the rehearsal fleet while clients ask, with the faults that are wanted. Runs on the controller."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal_upgrade, rollout
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, JournalError, latest
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.load import Load

PLAYBOOKS = pathlib.Path(__file__).resolve().parents[2] / "playbooks"


class StepFailed(Exception):
    """A playbook before the upgrade failed; the text names it and its last words."""


class ActionModule(ActionBase):
    """See the documentation of vllm_ascend.fleet.rehearsal_upgrade."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("state_directory", "faults", "rate"))

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, args = self.validate_argument_spec({
            "state_directory": {"type": "path", "required": True}, "faults": {"type": "raw", "default": {}}, "rate": {"type": "float", "default": 5.0}})
        self.state = pathlib.Path(args["state_directory"])
        self.sources = [str(source) for source in task_vars.get("ansible_inventory_sources") or ()]
        wanted, problems = rehearsal_upgrade.passed_on(load_extra_vars(self._loader))
        problems += rehearsal_upgrade.lever_problems(args["faults"], list(task_vars["hostvars"]))
        if problems:
            return {"failed": True, "msg": problems[0] + " -- nothing was rehearsed"}
        if self._task.check_mode:
            return {"changed": False}
        own = {"fleet_report_directory": str(self.state / "reports"), "fleet_history": str(self.state / "reports" / "history.sqlite")}
        try:
            self._step("deploy.yml", own)
            clients = rehearsal_upgrade.addresses(self._step("gateway.yml", own))
            failed, lines = self._upgrade(dict(wanted, **own), clients, args["faults"], args["rate"])
        except (StepFailed, JournalError) as error:
            return {"failed": True, "msg": f"the upgrade was not rehearsed: {error}"}
        for line in lines:
            self._display.display(line, color="red" if failed else None)
        result = {"changed": True, "lines": lines}
        return dict(result, failed=True, msg="the rehearsed upgrade is not one to run at night: see above") if failed else result

    def _upgrade(self, wanted, addresses, levers, rate):
        """:returns: (failed, lines) of rehearsal_upgrade.judge."""
        began, key = time.time(), None
        if (self.state / "fleet_gateway_clients").exists():
            key = (self.state / "fleet_gateway_clients").read_text(encoding="utf-8").strip()
        pulled, stuck = [], []
        with contextlib.ExitStack() as stack:
            loads = {model: stack.enter_context(Load(url, model, rate=rate, key=key, expected="")) for model, url in addresses.items()}
            try:
                for host, own in sorted(levers.items()):
                    for lever, value in sorted(own.items()):
                        pulled.append((host, lever))
                        self._lever(host, lever, value=str(value))
                _code, output = self._play("upgrade.yml", wanted, overlay=True)
            finally:
                for host, lever in pulled:
                    # One that cannot be let go keeps neither the others nor the report.
                    try:
                        self._lever(host, lever, clear=True)
                    except StepFailed as error:
                        stuck.append("  still pulled: %s on %s: %s" % (lever, host, error))
        folders = [folder for folder in latest(wanted["fleet_report_directory"]) if Journal(folder).path.stat().st_mtime >= began]
        events = Journal(folders[0]).events() if folders else []
        state = rollout.replay(events) if events else None
        failed, lines = rehearsal_upgrade.judge(state, events, {model: load.report() for model, load in loads.items()}, levers,
                                                rehearsal_upgrade.last_words(output))
        kept = ["  journal: %s" % Journal(folders[0]).path, "  report: %s" % (folders[0] / "index.html")] if folders else []
        return failed or bool(stuck), lines + stuck + kept + [""]

    def _lever(self, host, lever, **more):
        self._step("rehearse_fault.yml", dict(more, host=host, fault=lever), overlay=False)

    def _step(self, playbook, variables, overlay=True):
        """:returns: what it printed. :raises StepFailed: when it failed."""
        code, output = self._play(playbook, variables, overlay)
        if code:
            raise StepFailed(f"{playbook} failed on the rehearsal fleet: {rehearsal_upgrade.last_words(output)}; all of it is in "
                             f"{self.state / (playbook + '.log')}")
        return output

    def _play(self, playbook, variables, overlay):
        """Run one playbook. :returns: (exit code, what it printed)."""
        self._display.display(f"rehearsal: {playbook}")
        sources = self.sources + ([str(self.state / "inventory.yml")] if overlay else [])
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as stream:
            json.dump(variables, stream)
            stream.flush()
            words = [sys.executable, "-m", "ansible", "playbook", str(PLAYBOOKS / playbook), "-e", "@" + stream.name]
            words += [word for source in sources for word in ("-i", source)]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                                  env=dict(os.environ, ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0"))
        (self.state / (playbook + ".log")).write_text(done.stdout, encoding="utf-8")
        return done.returncode, done.stdout
