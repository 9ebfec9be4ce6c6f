# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history in SQLite; HISTORY_ADDRESS and HISTORY_PASSWORD run the same against a real PostgreSQL, see tests/end_to_end/test_history.py."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sqlite3
import stat
import subprocess
import sys
import uuid

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history

POSTGRES, PASSWORD = os.environ.get("HISTORY_ADDRESS"), os.environ.get("HISTORY_PASSWORD")
COLLECTIONS = str(pathlib.Path(history.__file__).absolute()).partition("/ansible_collections/")[0]


@pytest.fixture
def address(tmp_path):
    """A history of its own for each test: a file, or a schema of the database."""
    if not POSTGRES:
        yield str(tmp_path / "new" / "history.sqlite")
        return
    psycopg = importlib.import_module("psycopg")
    name = "t" + uuid.uuid4().hex
    with psycopg.connect(POSTGRES, password=PASSWORD, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield f"{POSTGRES}?options=-csearch_path%3D{name}"
    with psycopg.connect(POSTGRES, password=PASSWORD, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")


def opened(address):
    return history.History(address, PASSWORD)


def record(number, **changes):
    return dict({"id": "%016x" % number, "run_id": "run%d" % number, "epoch_s": 1000.0 + number, "host": "a2-1", "instance": "gemma", "model": "gemma-4-E2B-it",
                 "platform": "a2", "suite": "gemma4", "workload": "1k/1k", "label": None, "protocol_id": "p" * 12, "counts_as": "kept", "status": "good",
                 "metrics": {"output_throughput": 80.0 + number, "mean_ttft_ms": 120.0}, "note": "ü"}, **changes)


def test_what_was_kept_comes_back_in_order_and_once(address):
    one = opened(address)
    assert one.record_benchmarks([record(2), record(1)]) == 2 and one.record_benchmarks([record(1), record(3)]) == 1
    one.close()
    again = opened(address)
    assert again.benchmarks("gemma4") == [record(1), record(2), record(3)] and again.benchmarks("qwen3") == []
    assert again.benchmarks("gemma4", model="gemma-4-E4B-it") == [] and again.benchmarks("gemma4", label="before") == []
    assert again.benchmarks("gemma4", limit=2) == [record(2), record(3)]
    again.close()


def test_series_hold_what_counts(address):
    one = opened(address)
    one.record_benchmarks([record(1), record(2, counts_as="warm-up"), record(3, host="a2-2"), record(4, status="failed", metrics={})])
    assert [value for _record, value in one.series("output_throughput")] == [81.0, 83.0]
    assert [value for _record, value in one.series("output_throughput", model="gemma-4-E2B-it", workload="1k/1k", host="a2-2", suite="gemma4")] == [83.0]
    assert one.series("mean_ttft_ms", workload="64k/1k") == [] and one.known() == (["gemma-4-E2B-it"], ["mean_ttft_ms", "output_throughput"])
    one.close()


def step(seconds, **changes):
    return dict({"run_id": "r%s" % seconds, "host": "a2-1", "step": "load", "model": "gemma-4-31B-it", "platform": "a2", "seconds": seconds,
                 "epoch_s": 1000.0 + seconds}, **changes)


def test_durations_tell_what_to_expect(address):
    one = opened(address)
    assert one.expected("load", "gemma-4-31B-it", "a2") is None
    one.record_steps([step(100.0), step(110.0)])
    assert one.expected("load", "gemma-4-31B-it", "a2") == {"median_s": 105.0, "spread_s": None, "count": 2, "basis": "model and platform"}
    one.record_steps([step(100.0), step(130.0), step(9.0, ok=False), step(5.0, step="drain")])
    found = one.expected("load", "gemma-4-31B-it", "a2")
    assert (found["median_s"], found["count"], round(found["spread_s"], 3)) == (110.0, 3, 14.826)
    assert one.expected("load", "gemma-4-31B-it", "a3")["basis"] == "model" and one.expected("load", "other", "a2")["basis"] == "platform"
    assert one.expected("load", "other", "a3")["basis"] == "step" and one.expected("prove") is None
    assert one.steps() == [("drain", "gemma-4-31B-it", "a2"), ("load", "gemma-4-31B-it", "a2")]
    one.close()


def test_only_the_newest_durations_count(address):
    one = opened(address)
    one.record_steps([step(float(number)) for number in range(1, 61)])
    assert one.expected("load")["count"] == history.STEPS_READ and one.expected("load")["median_s"] == 35.5
    one.close()


WRITER = """
import sys
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import history
from test_history import record
one = history.History(sys.argv[1], sys.argv[3] or None)
for number in range(10):
    one.record_benchmarks([record(int(sys.argv[2]) * 100 + number)])
one.close()
"""


def test_writers_at_the_same_time_lose_nothing_even_on_the_first_day(address):
    """Five processes meet a history that does not exist yet."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([COLLECTIONS, os.path.dirname(os.path.abspath(__file__))]))
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, address, str(number), PASSWORD or ""], env=environment, stderr=subprocess.PIPE)
               for number in range(5)]
    errors = [writer.communicate(timeout=120)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 5, errors
    one = opened(address)
    assert len(one.benchmarks("gemma4")) == 50 and one._version() == len(history.MIGRATIONS)
    one.close()


def test_an_older_schema_is_brought_up_and_keeps_its_rows(address, monkeypatch):
    monkeypatch.setattr(history, "MIGRATIONS", history.MIGRATIONS[:1])
    old = opened(address)
    old.record_benchmarks([record(1)])
    old.close()
    monkeypatch.undo()
    one = opened(address)
    assert one.benchmarks("gemma4") == [record(1)] and one.steps() == [] and one._version() == len(history.MIGRATIONS)
    one.close()


def test_a_newer_schema_is_left_alone(address, monkeypatch):
    opened(address).close()
    monkeypatch.setattr(history, "MIGRATIONS", history.MIGRATIONS[:1])
    with pytest.raises(history.HistoryError, match="has schema 2 and this release of the collection knows 1; update the collection"):
        opened(address)


def test_half_a_write_is_none(address):
    one = opened(address)
    with pytest.raises(history.HistoryError):
        one.record_benchmarks([record(1), record(2, host=None)])
    assert one.benchmarks("gemma4") == [] and one.record_benchmarks([record(1)]) == 1
    one.close()


def warned(address, work, password=None):
    said = []
    return history.use(address, password, said.append, work, "default"), said


def test_use_returns_what_the_work_returns(address):
    found, said = warned(address, lambda one: one.record_benchmarks([record(1)]), PASSWORD)
    assert found == 1 and said == []


def test_a_history_that_cannot_be_used_is_one_warning(tmp_path):
    (tmp_path / "garbage").write_bytes(b"this is no database at all, but long enough to look like one" * 40)
    (tmp_path / "cut").write_bytes(b"SQLite format 3\0" + b"\0" * 2000)
    (tmp_path / "folder").mkdir()
    for name in ("garbage", "cut", "folder", "garbage/below"):
        found, said = warned(str(tmp_path / name), lambda one: one.record_benchmarks([record(1)]))
        assert found == "default" and len(said) == 1 and str(tmp_path / name) in said[0] and "\n" not in said[0] and "move the file away" in said[0]


def test_a_history_that_may_not_be_written_is_a_warning_and_can_be_read(tmp_path):
    path = tmp_path / "history.sqlite"
    one = opened(str(path)) if not POSTGRES else history.History(str(path))
    one.record_benchmarks([record(1)])
    one.close()
    read_only = f"file:{path}?mode=ro"
    real = sqlite3.connect
    # Rights do not hold root back; the mode of the connection does.
    history.sqlite3.connect = lambda _path, **options: real(read_only, uri=True, **options)
    try:
        found, said = warned(str(path), lambda one: one.record_benchmarks([record(2)]))
        assert found == "default" and "readonly database" in said[0]
        assert warned(str(path), lambda one: len(one.benchmarks("gemma4"))) == (1, [])
    finally:
        history.sqlite3.connect = real
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_history_that_breaks_later_is_a_warning_too(tmp_path):
    def work(one):
        one._run("DROP TABLE fleet_metric")
        return one.record_benchmarks([record(1)])

    found, said = warned(str(tmp_path / "x"), work)
    assert found == "default" and "no such table" in said[0]


def test_postgresql_without_its_package_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    found, said = warned("postgresql://fleet@192.0.2.1/fleet", len)
    assert found == "default" and said == ["a history in PostgreSQL needs the Python package psycopg on the controller: pip install 'psycopg[binary]'"]


def test_a_password_in_the_address_is_not_told():
    assert history.shown("postgresql://fleet:s3cret@db.example.net/fleet") == "postgresql://fleet:********@db.example.net/fleet"
    assert history.shown("reports/history.sqlite") == "reports/history.sqlite"
    _found, said = warned("postgresql://fleet:s3cret@127.0.0.1:1/fleet?connect_timeout=2", len)
    # Without psycopg nobody gets as far as the address.
    assert len(said) == 1 and "s3cret" not in said[0]
    assert ("look at address, password and rights" if importlib.util.find_spec("psycopg") else "psycopg") in said[0]


def test_the_address_is_beside_the_reports_unless_told():
    assert history.address_of({}) == ("reports/history.sqlite", None)
    assert history.address_of({"fleet_report_directory": "/r"})[0] == "/r/history.sqlite"
    assert history.address_of({"fleet_history": "postgresql://h/d", "fleet_history_password": "x"}) == ("postgresql://h/d", "x")
