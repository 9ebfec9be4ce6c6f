# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal survives what kills its writers, and the ledger what its readers would not notice."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import types

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import ledger
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, JournalError, latest


def test_events_are_numbered_and_read_again(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.write("rollout.begin", evidence={"a": "ä"})
    journal.write("step.end", "h1", 0, "drain", True, 1.5, 2.0, "words")
    first, second = journal.events()
    assert (first["seq"], second["seq"], first["run"], first["evidence"]) == (1, 2, "run", {"a": "ä"})
    assert (second["host"], second["step"], second["ok"], second["elapsed_s"], second["expected_s"], second["message"]) == (
        "h1",
        "drain",
        True,
        1.5,
        2.0,
        "words",
    )


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_half_a_line_is_cut_off_by_who_writes_next(tmp_path, cut):
    journal = Journal(tmp_path / "run")
    for _number in range(2):
        journal.write("hold", message="x")
    text = journal.path.read_bytes()
    journal.path.write_bytes(text[:-cut])
    assert [event["seq"] for event in journal.events()] == [1] if cut > 1 else [1, 2]
    journal.write("hold", message="y")
    assert [event["seq"] for event in journal.events()][-1] in (2, 3)
    assert all(json.loads(line) for line in journal.path.read_text().splitlines())


def test_a_line_in_the_middle_that_is_none_is_named(tmp_path):
    journal = Journal(tmp_path / "run")
    journal.write("hold")
    journal.path.write_text("what?\n" + journal.path.read_text())
    with pytest.raises(JournalError, match="line 1 of the journal"):
        journal.events()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written.*free the disk"):
        Journal(tmp_path / "file" / "run").write("hold")


def _write(folder):
    for _number in range(25):
        Journal(folder).write("hold")


def test_writers_at_the_same_time_do_not_share_a_number(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path / "run",)) for _number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [event["seq"] for event in Journal(tmp_path / "run").events()] == list(range(1, 101))


def test_the_newest_rollout_comes_first(tmp_path):
    for name in ("20260101-1", "20260102-1"):
        Journal(tmp_path / name).write("hold")
    assert [path.name for path in latest(tmp_path)] == ["20260102-1", "20260101-1"]


@pytest.fixture
def told(tmp_path):
    """A ledger of three rollouts."""
    warnings = []
    for number in range(3):
        journal = Journal(tmp_path / ("r%d" % number))
        journal.write("rollout.begin", evidence={"hash": "h%d" % number, "owner": {"name": "ann"}})
        journal.write("rollout.end", message="done: h1", evidence={"outcome": "done"})
        ledger.append(tmp_path, journal, None, types.SimpleNamespace(warning=warnings.append))
    assert warnings == []
    return tmp_path / ledger.NAME


def test_a_ledger_that_nobody_touched_is_whole(told):
    rows = ledger.verify(told)
    assert [(row["rollout"], row["outcome"], row["ok"], row["message"]) for row in rows] == [("r%d" % n, "done", True, "whole") for n in range(3)]


@pytest.mark.parametrize("key", ["rollout", "outcome", "time", "plan", "owner", "message", "journal", "previous", "events"])
def test_an_altered_entry_is_told(told, key):
    lines = told.read_text().splitlines()
    told.write_text("\n".join([lines[0], json.dumps(dict(json.loads(lines[1]), **{key: "altered"})), lines[2]]) + "\n")
    rows = ledger.verify(told)
    assert rows[0]["ok"] and not rows[1]["ok"] and "altered" in rows[1]["message"]


def test_a_missing_entry_breaks_the_chain(told):
    lines = told.read_text().splitlines()
    told.write_text("\n".join([lines[0], lines[2]]) + "\n")
    assert "the chain is broken" in ledger.verify(told)[1]["message"]


def test_an_altered_journal_is_told(told):
    (told.parent / "r1" / "journal.jsonl").write_text("{}\n")
    assert [row["ok"] for row in ledger.verify(told)] == [True, False, True]


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_signatures_are_openssh_s_own(tmp_path):
    for name in ("key", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    journal = Journal(tmp_path / "r0")
    journal.write("rollout.begin", evidence={})
    journal.write("rollout.end", evidence={"outcome": "done"})
    ledger.append(tmp_path, journal, str(tmp_path / "key"), types.SimpleNamespace(warning=pytest.fail))
    signers = tmp_path / "signers"
    signers.write_text("ops@example.net %s" % (tmp_path / "key.pub").read_text())
    assert ledger.verify(tmp_path / ledger.NAME, str(signers))[0]["message"] == "signed"
    signers.write_text("ops@example.net %s" % (tmp_path / "other.pub").read_text())
    assert "signed by nobody" in ledger.verify(tmp_path / ledger.NAME, str(signers))[0]["message"]
    entry = json.loads((tmp_path / ledger.NAME).read_text())
    entry.pop("signature")
    (tmp_path / ledger.NAME).write_text(json.dumps(entry) + "\n")
    assert ledger.verify(tmp_path / ledger.NAME, str(signers))[0]["message"] == "it is not signed"


def test_a_ledger_that_cannot_be_written_only_warns(tmp_path):
    journal = Journal(tmp_path / "r0")
    journal.write("rollout.end", evidence={"outcome": "done"})
    (tmp_path / ledger.NAME).mkdir()
    warnings = []
    ledger.append(tmp_path, journal, None, types.SimpleNamespace(warning=warnings.append))
    assert len(warnings) == 1 and "ledger" in warnings[0]
