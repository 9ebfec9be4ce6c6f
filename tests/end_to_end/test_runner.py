# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under ansible-runner, which AWX starts playbooks with, a run says and leaves what it does by hand."""

from __future__ import annotations

import json
import re
import sys

import pytest
from fleet_operator import INVENTORY, ROOT, play, run, using

PLAN = "playbooks/plan.yml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{how: (the finished command, its report folder)} of the same plan, and the folder that ansible-runner was given."""
    folder = tmp_path_factory.mktemp("runner")
    reports = {how: folder / how for how in ("hand", "runner")}
    by_hand = play(PLAN, "-e", f"fleet_report_directory={reports['hand']}").succeeded()
    inventories = [word for path in using(INVENTORY)[1::2] for word in ("--inventory", path)]
    done = run([sys.executable, "-m", "ansible_runner", "run", folder / "private", "--project-dir", ROOT, "--playbook", PLAN, "--ident", "plan", *inventories,
                "--cmdline", f"-e fleet_report_directory={reports['runner']}"]).succeeded()
    return {"hand": (by_hand, reports["hand"]), "runner": (done, reports["runner"])}, folder / "private"


def left(folder):
    """{file: what a run has left in its one folder}."""
    (plan,) = folder.glob("*/plan.json")
    return {path.name: path.read_text(encoding="utf-8") for path in plan.parent.iterdir()}


def test_it_makes_the_same_plan(runs):
    said, _private = runs
    hashes = {how: re.findall(r"^plan ([0-9a-f]{64})", done.output, re.MULTILINE) for how, (done, _folder) in said.items()}
    assert hashes["hand"] == hashes["runner"] != []
    assert json.loads(left(said["hand"][1])["plan.json"]) == json.loads(left(said["runner"][1])["plan.json"])


def test_it_leaves_the_same_report(runs):
    said, _private = runs
    files = {how: left(folder) for how, (_done, folder) in said.items()}
    assert sorted(files["hand"]) == sorted(files["runner"])
    reports = {how: json.loads(found["report.json"]) for how, found in files.items()}
    assert reports["hand"]["verdict"] == reports["runner"]["verdict"]
    gates = {how: [(gate["rule"], gate["status"]) for gate in report["gates"]] for how, report in reports.items()}
    assert gates["hand"] == gates["runner"] != []


def test_ansible_runner_knows_how_it_ended(runs):
    _said, private = runs
    artifacts = private / "artifacts" / "plan"
    assert (artifacts / "status").read_text() == "successful" and (artifacts / "rc").read_text() == "0"
    tasks = {json.loads(path.read_text())["event_data"].get("task") for path in (artifacts / "job_events").glob("*.json")}
    assert "Look at every host at once" in tasks
