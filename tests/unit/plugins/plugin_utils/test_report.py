# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run's report says, and that every run gets one."""

from __future__ import annotations

import html.parser
import json
import pathlib
import sys
from xml.etree import ElementTree

import jsonschema
import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import run_report
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report, workspace

ROOT = pathlib.Path(report.__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

import synthetic_run  # noqa: E402  (after the path)


@pytest.fixture
def written(monkeypatch, tmp_path):
    """Write a run's files and its report; (report, folder)."""
    def write(files, surveys, **more):
        monkeypatch.setattr(workspace, "load", lambda name, default=None: surveys)
        folder = tmp_path / "20260922-120000-1"
        synthetic_run.put(folder, files)
        return report.conclude(folder, **more), folder
    return write


class Page(html.parser.HTMLParser):
    """Its text, what it loads, and whether its tags are closed."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.loads, self.ids = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [value for key, value in attrs.items() if key == "src" or (key == "href" and not value.startswith(("#", "data:")))]
        self.ids.append(attrs.get("id"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing, open are {self.open}"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.mark.parametrize("kind", sorted(synthetic_run.KINDS))
def test_every_kind_of_run_gets_all_four_files(written, kind):
    made, folder = written(*synthetic_run.KINDS[kind]())
    content = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / "report.json").read_text())).validate(content)
    page = Page((folder / "index.html").read_text())
    assert not page.open and not page.loads, "the page is whole and loads nothing"
    text = " ".join(" ".join(page.words).split())
    assert made["verdict"]["what"] in text and made["verdict"]["remedy"] in text and made["verdict"]["where"] in text
    ticket = (folder / "report.md").read_text()
    assert ticket.startswith("## FAILED") and len(ticket) < 4000
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert any(case.find("failure") is not None for case in suites.iter("testcase"))
    for suite in suites:
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) and int(suite.get("tests")) == len(suite.findall("testcase"))


def test_a_host_that_went_wrong_is_named_with_what_to_do(written):
    verdict = written(*synthetic_run.deploy())[0]["verdict"]
    assert verdict["status"] == "bad" and verdict["where"] == "a2-3"
    assert verdict["what"] == ("1 of 6 hosts went wrong (1 reverted): gemma-4-31b-it: endpoint.answers: '<pad><pad><pad>' in 32 tokens; expected an answer "
                               "with 'paris'")
    assert verdict["remedy"].startswith("journalctl -u vllm-ascend-gemma-4-31b-it") and "--limit a2-3" in verdict["remedy"]


def test_a_good_deploy_counts(written):
    made, folder = written(*synthetic_run.deploy(failed=None))
    assert made["verdict"] == {"status": "good", "what": "24 instances on 6 hosts: 24 deployed", "where": "", "remedy": ""}
    assert all(host["health"] == "good" for host in made["hosts"]) and (folder / "report.md").read_text().startswith("## OK")


def test_hosts_that_are_not_ready_are_told_with_the_first_remedy(written):
    verdict = written(*synthetic_run.preflight())[0]["verdict"]
    assert (verdict["where"], verdict["what"].split(":")[0]) == ("a2-4", "1 of 6 hosts are not ready") and "npu-smi info -t health" in verdict["remedy"]


def test_a_run_that_is_cut_off_says_so(written):
    files, seen = synthetic_run.fleet(2)[0], synthetic_run.fleet(2)[1]
    made = written({"plan": files}, seen, ended=False)[0]
    assert made["verdict"]["status"] == "unsure" and "was cut off" in made["verdict"]["what"]


def test_a_rollout_that_was_refused_says_why(written):
    plan, seen, verdict = synthetic_run.fleet(2)
    made = written({"plan": plan, "preflight": verdict}, seen, said="another rollout is under way")[0]
    assert made["verdict"]["status"] == "bad" and made["verdict"]["what"] == "another rollout is under way"


def test_a_rollout_tells_its_batches_and_its_steps(written):
    made = written(*synthetic_run.rollout())[0]
    assert [event["what"] for event in made["events"]][:2] == ["rollout", "batch begins"] and made["verdict"]["what"].endswith("; the rollout ended held")
    drain = next(step for step in made["walk"] if step["step"] == "drain")
    assert drain["elapsed_s"] == 8.0 and drain["expected_s"] == 9.0 and drain["began_epoch_s"] == synthetic_run.BEGAN + 2
    by_name = {host["name"]: host for host in made["hosts"]}
    assert by_name["a2-3"]["health"] == "bad" and by_name["a2-1"]["outcome"] == "done" and by_name["a2-6"]["outcome"] is None


def test_the_waiver_stands_with_its_reason(written):
    waiver = written(*synthetic_run.deploy())[0]["waivers"][0]
    assert waiver["where"] == "a2-2" and waiver["reason"] == synthetic_run.WAIVER["reason"]


def test_a_chart_holds_now_before_and_the_reference(written):
    first = written(*synthetic_run.benchmark())[0]["benchmark"]["charts"][0]
    assert first["y"] == [80.31, 70.0, pytest.approx(80.51), pytest.approx(80.61)] and first["before"] == [76.0] * 4
    assert first["lines"][0]["label"] == "gemma4-v0.18.0rc1" and first["lines"][0]["value"] > 100


def test_charts_come_with_their_library_and_its_licence(written):
    page = (written(*synthetic_run.benchmark())[1] / "index.html").read_text()
    assert "The MIT License" in page and "uPlot" in page and 'data-chart="0"' in page


def test_a_page_without_charts_carries_no_library(written):
    assert "uPlot" not in (written(*synthetic_run.deploy())[1] / "index.html").read_text()


def test_what_a_host_says_stays_text(written):
    files, seen = synthetic_run.deploy(2, failed="a2-2")
    evil = "</script><script>alert(1)</script> | <img src=x onerror=alert(1)> \x00"
    files["run"]["instances"][-1].update(reason=evil, outcome="failed")
    files["preflight"]["findings"][0].update(status="fail", found=evil)
    files["run"]["hosts"]["a2-1"]["diff"][0]["after"] = evil + "\nOPENAI_API_KEY=sk-planted\n"
    made, folder = written(files, seen)
    page = Page((folder / "index.html").read_text())
    assert not page.loads and not page.open and "alert(1)</script>" in "".join(page.words)
    assert "sk-planted" not in json.dumps(made) and "sk-planted" not in (folder / "index.html").read_text()
    assert "\\<img" in (folder / "report.md").read_text() and ElementTree.parse(folder / "junit.xml")


def test_numbers_of_a_benchmark_do_not_break_out_of_their_script(written):
    files, seen = synthetic_run.benchmark(2)
    for record in files["benchmark"]["records"]:
        record["model"] = "</script><b>"
    page = (written(files, seen)[1] / "index.html").read_text()
    assert "</script><b>" not in page and Page(page).open == []


def test_a_report_that_cannot_be_made_never_changes_the_outcome(written, monkeypatch):
    warned = []
    monkeypatch.setattr(report.Display, "warning", lambda self, text: warned.append(text))
    assert written({"run": {"instances": [{"nobody": "knows"}]}}, {})[0] is None
    assert len(warned) == 1 and "was not written" in warned[0]


def test_a_cell_of_a_ticket_stays_one_cell():
    assert run_report._cell("a | b\n<c> `d` \\") == "a \\| b \\<c> \\`d\\` \\\\"


@pytest.mark.parametrize("value, words", [(0.04, "0.0 s"), (89.9, "89.9 s"), (90, "1 min 30 s"), (5399.6, "90 min 00 s"), (7260, "2 h 01 min")])
def test_times_are_told_as_a_person_would(value, words):
    assert report.seconds(value) == words


def verified(ready=True, reason=None):
    """The files of a run that asked one instance, or could not."""
    found = synthetic_run.proof("a2-1", "qwen", None if ready else "42 is wrong")["findings"]
    answer = {
        "check": "smoke.arithmetic",
        "asked": "What is 17 + 25?",
        "status": 200,
        "text": "42",
        "reasoning": "",
        "error": None,
        "first_token_s": 0.1,
        "elapsed_s": 0.3,
    }
    instances = [] if reason else [{"host": "a2-1", "instance": "qwen", "model": "Qwen3-32B", "served_model_name": "q", "release": "r", "ready": ready,
                                    "elapsed_s": 1.0, "findings": found, "answers": [answer]}]
    return {
        "verify": {
            "schema": 1,
            "run_id": "r",
            "verdict": "pass" if ready and not reason else "fail",
            "instances": instances,
            "hosts": {"a2-1": {"reason": reason}},
        }
    }


@pytest.mark.parametrize("ready, reason, status, words", [
    (True, None, "good", "1 instances on 1 hosts answer as they should"),
    (False, None, "bad", "1 of 1 hosts do not answer as they should: endpoint.answers: 42 is wrong; expected an answer with 'paris'"),
    (True, "no route to host", "bad", "no instance was asked: no route to host"),
])
def test_a_verification_says_who_does_not_answer(written, ready, reason, status, words):
    made, folder = written(verified(ready, reason), {"a2-1": {"instances": {"qwen": {"manifest": {"devices": ["/dev/davinci0"], "port": 8000}}}}})
    jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / "report.json").read_text())).validate(made)
    assert (made["verdict"]["status"], made["verdict"]["what"]) == (status, words)
    failed = sum(int(suite.get("failures")) for suite in ElementTree.parse(folder / "junit.xml").getroot())
    assert bool(failed) is (status == "bad")
    assert reason or "What is 17 + 25?" in (folder / "index.html").read_text()
