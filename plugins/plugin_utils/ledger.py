# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: one line for each rollout, chained by hash, and signed by OpenSSH's own signing when there is a key. Runs on the controller."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

NAME = "ledger.jsonl"
NAMESPACE = "vllm-ascend-fleet"
FIRST = "0" * 64


class LedgerError(Exception):
    """The ledger cannot be used; the text names it and the remedy."""


def digest(entry):
    """The hash of an entry without its own and without its signature."""
    told = {key: value for key, value in entry.items() if key not in ("hash", "signature")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()


def append(directory, journal, key, display):
    """Add a rollout's record. A ledger that cannot be written warns and never changes the outcome of a rollout."""
    try:
        events = journal.events()
        entry = {"schema": 1, "rollout": journal.run, "time": events[-1]["time"], "outcome": (events[-1].get("evidence") or {}).get("outcome"),
                 "message": events[-1]["message"], "plan": (events[0].get("evidence") or {}).get("hash"),
                 "owner": (events[0].get("evidence") or {}).get("owner"), "events": len(events),
                 "journal": hashlib.sha256(journal.path.read_bytes()).hexdigest()}
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / NAME, "a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            lines = [line for line in stream.read().split("\n") if line.strip()]
            entry["previous"] = json.loads(lines[-1])["hash"] if lines else FIRST
            entry["hash"] = digest(entry)
            if key:
                entry["signature"] = sign(entry["hash"], key)
            stream.write(json.dumps(entry, sort_keys=True, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, ValueError, KeyError, IndexError, LedgerError) as error:
        display.warning(f"the ledger {directory / NAME} was not written: {error}")


def sign(text, key):
    """Sign a text. :raises LedgerError: with ssh-keygen's own reason."""
    tool = shutil.which("ssh-keygen")
    if not tool:
        raise LedgerError("ssh-keygen was not found on the controller; install the OpenSSH client")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "entry"
        path.write_text(text, encoding="ascii")
        done = subprocess.run([tool, "-Y", "sign", "-f", os.path.expanduser(key), "-n", NAMESPACE, str(path)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise LedgerError("ssh-keygen -Y sign: %s" % (done.stderr.strip().splitlines() or ["no reason"])[-1])
        return path.with_suffix(".sig").read_text(encoding="ascii")


def verify(path, allowed_signers=None):
    """Check every entry: its own hash, the chain, its journal when that is still there, and its signature.

    :param allowed_signers: file in OpenSSH's form; without it signatures are not judged.
    :returns: [{"rollout", "outcome", "ok", "message"}]. :raises LedgerError: when there is no ledger.
    """
    path = pathlib.Path(path)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error.strerror or error}") from error
    rows, previous = [], FIRST
    for number, line in enumerate(lines, 1):
        problems, entry = [], {}
        try:
            entry = json.loads(line)
        except ValueError:
            problems.append("line %d is no entry" % number)
        if entry and entry.get("hash") != digest(entry):
            problems.append("the entry was altered: its hash is %s" % digest(entry)[:12])
        if entry and entry.get("previous") != previous:
            problems.append("the chain is broken: an entry before it is missing or was altered")
        previous = entry.get("hash")
        journal = path.parent / str(entry.get("rollout")) / "journal.jsonl"
        if entry and journal.exists() and hashlib.sha256(journal.read_bytes()).hexdigest() != entry.get("journal"):
            problems.append("its journal %s was altered" % journal)
        if entry and allowed_signers:
            problems += _signature_problems(entry, allowed_signers)
        rows.append({"rollout": entry.get("rollout"), "outcome": entry.get("outcome"), "ok": not problems, "message": "; ".join(problems) or (
            "signed" if entry.get("signature") and allowed_signers else "whole")})
    return rows


def _signature_problems(entry, allowed_signers):
    if not entry.get("signature"):
        return ["it is not signed"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "signature"
        path.write_text(entry["signature"], encoding="ascii")
        found = subprocess.run(["ssh-keygen", "-Y", "find-principals", "-f", allowed_signers, "-s", str(path)], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, check=False)
        if found.returncode or not found.stdout.strip():
            return ["it is signed by nobody of %s" % allowed_signers]
        done = subprocess.run(["ssh-keygen", "-Y", "verify", "-f", allowed_signers, "-I", found.stdout.split("\n")[0], "-n", NAMESPACE, "-s", str(path)],
                              input=str(entry.get("hash")), capture_output=True, text=True, check=False)
        return [] if done.returncode == 0 else ["its signature is not of this entry"]
