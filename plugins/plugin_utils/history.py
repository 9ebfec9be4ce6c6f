# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet measured, and how long its steps took: in a SQLite file, or in PostgreSQL for teams. Controller only.

A history that cannot be read or written is a warning and never changes the outcome of a run: go through :func:`use`.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import sqlite3
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import intervals

BUSY_S = 30.0
CONNECT_S = 10
# The newest durations tell what to expect.
STEPS_READ = 50
STEPS_FOR_SPREAD = 3
# Of this name nobody else takes a lock in the same database.
ADVISORY_LOCK = 7103225504917310

# One entry for each version; never changed once released, only followed by another.
MIGRATIONS = (
    ("""CREATE TABLE fleet_benchmark (id TEXT PRIMARY KEY, run_id TEXT NOT NULL, epoch_s DOUBLE PRECISION, host TEXT NOT NULL, instance TEXT NOT NULL,
        model TEXT, platform TEXT, suite TEXT NOT NULL, workload TEXT NOT NULL, label TEXT, protocol_id TEXT NOT NULL, record TEXT NOT NULL)""",
     "CREATE INDEX fleet_benchmark_what ON fleet_benchmark (suite, model, protocol_id, epoch_s)",
     """CREATE TABLE fleet_metric (record_id TEXT NOT NULL, metric TEXT NOT NULL, value DOUBLE PRECISION NOT NULL, PRIMARY KEY (record_id, metric))"""),
    ("""CREATE TABLE fleet_step (id TEXT PRIMARY KEY, run_id TEXT NOT NULL, epoch_s DOUBLE PRECISION, host TEXT NOT NULL, step TEXT NOT NULL, model TEXT,
        platform TEXT, seconds DOUBLE PRECISION NOT NULL, ok INTEGER NOT NULL)""",
     "CREATE INDEX fleet_step_what ON fleet_step (step, model, platform, epoch_s)"),
)


class HistoryError(Exception):
    """A history that cannot be used, in one line with the remedy."""


def shown(address):
    """The address without a password that stands in it."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:********@", str(address))


def _import_psycopg():
    try:
        import psycopg
    except ImportError as error:
        raise HistoryError("a history in PostgreSQL needs the Python package psycopg on the controller: pip install 'psycopg[binary]'") from error
    return psycopg


class History:
    """One open history."""

    def __init__(self, address, password=None):
        """Open a history and bring its tables up to date.

        :param str address: a file, or postgresql://user@host:port/database.
        :raises HistoryError: when it cannot be used.
        """
        self.address, self.postgres = str(address), bool(re.match(r"postgres(ql)?://", str(address)))
        if self.postgres:
            psycopg = _import_psycopg()
            self.errors = (psycopg.Error,)
            self._connect(lambda: psycopg.connect(self.address, connect_timeout=CONNECT_S, **({"password": password} if password else {})))
        else:
            self.errors = (sqlite3.Error, OSError)
            self._connect(self._file)
        try:
            self._migrate()
        except self.errors as error:
            self.close()
            raise self._problem(error) from error
        except HistoryError:
            self.close()
            raise

    def _connect(self, connect):
        try:
            self.connection = connect()
        except self.errors as error:
            raise self._problem(error) from error

    def _file(self):
        path = pathlib.Path(self.address).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a level of its own every statement would begin a transaction that others' writes may then break.
        return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)

    def _problem(self, error):
        text = " ".join(str(error).split()) or type(error).__name__
        remedy = "look at address, password and rights" if self.postgres else "move the file away to begin a new one, or correct its rights"
        return HistoryError(f"the history {shown(self.address)} cannot be used: {text}; {remedy}")

    def close(self):
        """Let go of it."""
        self.connection.close()

    def _run(self, statement, values=()):
        cursor = self.connection.cursor()
        cursor.execute(statement.replace("?", "%s") if self.postgres else statement, tuple(values))
        return cursor

    def _changed(self, work):
        """Do ``work`` in one transaction that nobody else's writes can come between."""
        try:
            if not self.postgres:
                self._run("BEGIN IMMEDIATE")
            result = work()
            self.connection.commit()
        except self.errors as error:
            if not self.postgres and not self.connection.in_transaction:
                raise self._problem(error) from error
            self.connection.rollback()
            raise self._problem(error) from error
        return result

    def _read(self, statement, values=()):
        try:
            rows = self._run(statement, values).fetchall()
            self.connection.commit()
        except self.errors as error:
            self.connection.rollback()
            raise self._problem(error) from error
        return rows

    def _version(self):
        found = self._run("SELECT 1 FROM information_schema.tables WHERE table_name = 'fleet_schema' AND table_schema = ANY (current_schemas(false))"
                          if self.postgres else "SELECT 1 FROM sqlite_master WHERE name = 'fleet_schema'").fetchall()
        return self._run("SELECT max(version) FROM fleet_schema").fetchone()[0] if found else 0

    def _migrate(self):
        version = self._version()
        self.connection.commit()
        if version > len(MIGRATIONS):
            raise HistoryError(f"the history {shown(self.address)} has schema {version} and this release of the collection knows {len(MIGRATIONS)}; "
                               "update the collection, or give another fleet_history")
        if version < len(MIGRATIONS):
            self._changed(self._to_newest)

    def _to_newest(self):
        if self.postgres:
            self._run("SELECT pg_advisory_xact_lock(?)", [ADVISORY_LOCK])
        # Somebody else may have been quicker.
        version = self._version()
        if not version:
            self._run("CREATE TABLE IF NOT EXISTS fleet_schema (version INTEGER NOT NULL)")
        for number in range(version, len(MIGRATIONS)):
            for statement in MIGRATIONS[number]:
                self._run(statement)
            self._run("INSERT INTO fleet_schema (version) VALUES (?)", [number + 1])

    def record_benchmarks(self, records):
        """Keep benchmark records; one that is there already stays as it is. :returns: how many were new."""
        def work():
            count = 0
            for record in records:
                new = self._run(
                    "INSERT INTO fleet_benchmark (id, run_id, epoch_s, host, instance, model, platform, suite, workload, label, protocol_id, record) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    [record[key] for key in ("id", "run_id", "epoch_s", "host", "instance", "model", "platform", "suite", "workload", "label",
                                             "protocol_id")] + [json.dumps(record, sort_keys=True, ensure_ascii=False)]).rowcount
                if new > 0:
                    count += 1
                    for metric, value in record["metrics"].items():
                        self._run("INSERT INTO fleet_metric (record_id, metric, value) VALUES (?, ?, ?)", [record["id"], metric, float(value)])
            return count
        return self._changed(work)

    def benchmarks(self, suite, model=None, label=None, limit=5000):
        """Records of a suite, the newest last."""
        where, values = "suite = ?", [suite]
        for column, value in (("model", model), ("label", label)):
            if value is not None:
                where, values = where + f" AND {column} = ?", values + [value]
        rows = self._read(f"SELECT record FROM fleet_benchmark WHERE {where} ORDER BY epoch_s DESC LIMIT {int(limit)}", values)
        return [json.loads(row[0]) for row in reversed(rows)]

    def series(self, metric, model=None, suite=None, workload=None, host=None, limit=200):
        """[(record, value)] of one metric, the newest last; only what counts and is good."""
        where, values = "m.metric = ?", [metric]
        for column, value in (("model", model), ("suite", suite), ("workload", workload), ("host", host)):
            if value:
                where, values = where + f" AND b.{column} = ?", values + [value]
        rows = self._read("SELECT b.record, m.value FROM fleet_benchmark b JOIN fleet_metric m ON m.record_id = b.id "
                          f"WHERE {where} ORDER BY b.epoch_s DESC", values)
        found = [(record, value) for record, value in ((json.loads(text), value) for text, value in rows) if record["counts_as"] == "kept"]
        return list(reversed(found[:limit]))

    def known(self):
        """(models, metrics) that have a series."""
        return ([row[0] for row in self._read("SELECT DISTINCT model FROM fleet_benchmark WHERE model IS NOT NULL ORDER BY model")],
                [row[0] for row in self._read("SELECT DISTINCT metric FROM fleet_metric ORDER BY metric")])

    def record_steps(self, rows):
        """Keep how long steps took.

        :param rows: [{"run_id", "host", "step": "load" | "drain" | "prove" | "pull" | …, "seconds", and where known "model", "platform", "epoch_s",
            "ok"}]; the same row twice is kept once.
        """
        def work():
            for row in rows:
                made = {"model": None, "platform": None, "epoch_s": time.time(), "ok": True, **row}
                identity = json.dumps([made[key] for key in ("run_id", "host", "step", "model")] + [row.get("epoch_s"), made["seconds"]])
                self._run("INSERT INTO fleet_step (id, run_id, epoch_s, host, step, model, platform, seconds, ok) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                          "ON CONFLICT (id) DO NOTHING",
                          [hashlib.sha256(identity.encode("utf-8")).hexdigest()[:24]] + [made[key] for key in (
                              "run_id", "epoch_s", "host", "step", "model", "platform")] + [float(made["seconds"]), int(bool(made["ok"]))])
        return self._changed(work)

    def expected(self, step, model=None, platform=None):
        """How long a step takes, by what it took before.

        :returns: {"median_s", "spread_s" (median absolute deviation, None for fewer than three), "count", "basis": what was alike} or None.
        """
        for basis, wanted in (("model and platform", {"model": model, "platform": platform}), ("model", {"model": model}),
                              ("platform", {"platform": platform}), ("step", {})):
            if any(value is None for value in wanted.values()):
                continue
            where = "".join(f" AND {column} = ?" for column in wanted)
            seconds = [row[0] for row in self._read(f"SELECT seconds FROM fleet_step WHERE ok = 1 AND step = ?{where} ORDER BY epoch_s DESC "
                                                    f"LIMIT {STEPS_READ}", [step, *wanted.values()])]
            if seconds:
                return {"median_s": intervals.median(seconds), "count": len(seconds), "basis": basis,
                        "spread_s": intervals.spread(seconds) if len(seconds) >= STEPS_FOR_SPREAD else None}
        return None

    def steps(self):
        """[(step, model, platform)] that something is known of."""
        return [tuple(row) for row in self._read("SELECT DISTINCT step, model, platform FROM fleet_step WHERE ok = 1 ORDER BY step, model, platform")]


def use(address, password, warn, work, default=None):
    """What ``work(history)`` returns; ``default`` and a warning when the history cannot be used."""
    try:
        history = History(address, password)
    except HistoryError as error:
        warn(str(error))
        return default
    try:
        return work(history)
    except HistoryError as error:
        warn(str(error))
        return default
    finally:
        history.close()


def address_of(variables):
    """(address, password) of the history that a host's variables ask for; a file in the folder of reports by default."""
    address = variables.get("fleet_history") or str(pathlib.Path(variables.get("fleet_report_directory") or "reports") / "history.sqlite")
    return address, variables.get("fleet_history_password")
