# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a rollout: one JSON object a line, on disk before the act that it tells of. Runs on the controller."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import time

NAME = "journal.jsonl"


class JournalError(Exception):
    """The journal cannot be written or read; the text names it and the remedy."""


class Journal:
    """The journal in one folder. Several processes of one run write to it."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / NAME
        self.run = self.path.parent.name

    def write(self, event, host=None, batch=None, step=None, ok=None, elapsed_s=None, expected_s=None, message="", evidence=None):
        """Append one event and have it on disk. :returns: the event."""
        entry = {"time": round(time.time(), 3), "run": self.run, "event": event, "host": host, "batch": batch, "step": step, "ok": ok,
                 "elapsed_s": elapsed_s, "expected_s": expected_s, "message": message}
        if evidence is not None:
            entry["evidence"] = evidence
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                entry = {"seq": self._next(stream), **entry}
                stream.write(json.dumps(entry, ensure_ascii=False, sort_keys=False).encode("utf-8") + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be written: {error.strerror or error}; free the disk or set fleet_report_directory") from error
        return entry

    @staticmethod
    def _next(stream):
        """One more than the last whole event; a line that a dying controller left half is cut off."""
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        start = max(0, size - (1 << 20))
        stream.seek(start)
        tail = stream.read()
        end = tail.rfind(b"\n") + 1
        if end < len(tail):
            os.ftruncate(stream.fileno(), start + end)
            stream.seek(0, os.SEEK_END)
        lines = tail[:end].splitlines()
        return json.loads(lines[-1])["seq"] + 1 if lines else 1

    def events(self):
        """All whole events. :raises JournalError: when a line in the middle is none."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be read: {error.strerror or error}") from error
        found, lines = [], text.split(b"\n")
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                found.append(json.loads(line))
            except ValueError as error:
                if number == len(lines) - 1:
                    break  # the controller died while it wrote
                raise JournalError(
                    f"line {number + 1} of the journal {self.path} is no event; move the file away, the hosts themselves know the rest"
                ) from error
        return found


def latest(directory):
    """The folders of all rollouts below a report directory, the newest first."""
    return sorted((path.parent for path in pathlib.Path(directory).glob("*/" + NAME)), reverse=True)
