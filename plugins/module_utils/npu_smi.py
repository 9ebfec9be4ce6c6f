# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of what ``npu-smi`` prints. Pure: text in, dict out, linear time, no exceptions.

The tables are read by their headings, never by column position: layouts differ by chip family and by tool generation,
and neither predicts the other. What a heading does not explain is an error with the raw text, not a guess.
"""
from __future__ import annotations

import re

EXCERPT_CHARS = 2000
HEALTH_STATES = ("OK", "Warning", "Alarm", "Critical", "UNKNOWN")

CHIP_KEYS = (
    "npu_id", "chip_id", "phy_id", "name", "health", "bus_id", "power_w", "temp_c", "hugepages_used", "hugepages_total",
    "aicore_pct", "mem_used_mb", "mem_total_mb", "hbm_used_mb", "hbm_total_mb", "logic_id",
)

# Heading (lower case, blanks collapsed) -> (field, what its value looks like). Longer headings first: they are matched
# from the left of what remains of a heading cell. Units are part of a heading: another unit is another column.
FIRST_ROW = (
    ("npu id", ("npu_id", "int")), ("npu", ("npu_id", "int")), ("name", ("name", "text")), ("health", ("health", "text")),
    ("power(w)", ("power_w", "number")), ("temp(c)", ("temp_c", "number")), ("hugepages-usage(page)", ("hugepages", "pair")),
)
SECOND_ROW = (
    ("chip", ("chip_id", "int")), ("phy-id", ("phy_id", "int")), ("device", ("logic_id", "int")), ("bus-id", ("bus_id", "text")),
    ("aicore(%)", ("aicore_pct", "number")), ("npu util(%)", ("aicore_pct", "number")),
    ("memory-usage(mb)", ("mem", "pair")), ("hbm-usage(mb)", ("hbm", "pair")),
)
PROCESS_ROW = (
    ("npu id", ("npu_id", "int")), ("npu", ("npu_id", "int")), ("chip", ("chip_id", "int")),
    ("process id in container", ("container_pid", "int")), ("process id", ("pid", "int")), ("process name", ("name", "text")),
    ("process memory(mb)", ("mem_mb", "int")),
)
PAIR_FIELDS = {
    "hugepages": ("hugepages_used", "hugepages_total"), "mem": ("mem_used_mb", "mem_total_mb"), "hbm": ("hbm_used_mb", "hbm_total_mb"),
}

# DCMI and npu-smi codes whose meaning is more telling than the message around them.
KIND_BY_CODE = {
    -8001: "invalid-parameter", -9001: "invalid-parameter", -8002: "permission-denied", -9002: "permission-denied",
    -8006: "timeout", -9006: "timeout", -8007: "device-not-found", -9007: "device-not-found", -8008: "device-not-found",
    -9008: "device-not-found", -8012: "device-not-ready", -8013: "not-supported-in-container", -8016: "aborted",
    -8017: "device-upgrading", -8020: "device-occupied", -8255: "not-supported",
}
# Text (lower case) -> kind, first hit wins; the order goes from the loader to the tool.
KIND_BY_TEXT = (
    ("error while loading shared libraries", "library-missing"), ("cannot open shared object file", "library-missing"),
    ("command not found", "command-not-found"), ("executable file not found", "command-not-found"),
    ("npu-smi: not found", "command-not-found"), ("no such file or directory", "command-not-found"),
    # Shells of Chinese hosts: command not found (twice), no such file or directory.
    ("\u672a\u627e\u5230\u547d\u4ee4", "command-not-found"), ("\u627e\u4e0d\u5230\u547d\u4ee4", "command-not-found"),
    ("\u6ca1\u6709\u90a3\u4e2a\u6587\u4ef6\u6216\u76ee\u5f55", "command-not-found"),
    ("exec format error", "wrong-architecture"), ("cannot execute binary file", "wrong-architecture"),
    ("[sudo] password", "sudo-password-required"), ("password is required", "sudo-password-required"),
    ("not in the sudoers file", "permission-denied"), ("permission denied", "permission-denied"),
    ("operation not permitted", "permission-denied"), ("\u6743\u9650\u4e0d\u591f", "permission-denied"),
    ("device is used", "device-occupied"), ("dcmi module initialize failed", "dcmi-init-failed"),
    ("dcmi model initialized failed", "dcmi-init-failed"), ("get board type failed", "board-type-failed"),
    ("failed to execute npu-smi", "command-failed"), ("command or option is not found", "unknown-command"),
    ("error parameter of", "invalid-parameter"), ("is not support", "not-supported"), ("not supported", "not-supported"),
    ("initialize schedulerclient", "timeout"), ("timed out", "timeout"), ("timeout", "timeout"), ("time out", "timeout"),
    ("terminated", "timeout"), ("killed", "timeout"), ("segmentation fault", "crashed"), ("core dumped", "crashed"),
    ("aborted", "crashed"), ("no npu", "no-chips"), ("no device", "no-chips"),
)
# Kinds that say nothing of the exit status; all others are messages that the tool, the loader or the shell ends with.
_STATUS_UNKNOWN = ("unrecognized", "empty-output", "no-chips", "truncated")

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_INT = re.compile(r"-?[0-9]{1,12}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,6})?\Z")
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{1,2}\Z")
_IDLE = re.compile(r"No running processes found in NPU ([0-9]{1,9})\s*\Z")
_RET = re.compile(r"\bret(?: is |=| ?: ?)(-[0-9]{1,9})\b")
_BLANKS = dict.fromkeys(map(ord, u"\t\u00a0\u2002\u2003\u2009\u202f\u3000"), u" ")
_NULLS = ("NA", "-", "--", "")


class _Unaccountable(Exception):
    """A piece of the table that the headings do not explain."""


def parse_info(text):
    """Read the output of ``npu-smi info``.

    text: str, stdout (with or without stderr) of one run, of any tool generation (1.8 .. 26).
    Returns a dict, one of:

    a reading
        ``npu_smi_version``, ``driver_version`` (str or None), ``chips`` (list of dicts with CHIP_KEYS; None stands for ``-``,
        ``NA``, an empty cell, a column that the layout does not have; MB and pages as printed), ``processes`` (``npu_id``,
        ``chip_id``, ``pid``, ``name`` which may be "", ``mem_mb``), ``process_table`` (bool: there was one), ``idle_npus``.
        If something of it was missing, also ``incomplete`` (list of sentences) and ``excerpt``; a chip whose row was dropped
        is there with None in its place, so a reader that wants health "OK" never finds it by accident.
    a failure
        ``error`` True, ``kind``, ``excerpt`` (raw text), ``chips`` [], ``processes`` [], ``ret`` (int) when a code was printed,
        ``exit_nonzero`` True when that message always ends the tool, ``reason`` (str) when the table itself was at fault.

    Kinds: command-not-found, library-missing, wrong-architecture, permission-denied, sudo-password-required, device-occupied
    (-8020), dcmi-init-failed (-8005 and others), board-type-failed (-9005 and others), device-not-found, device-not-ready,
    device-upgrading, not-supported, not-supported-in-container, invalid-parameter, unknown-command, command-failed, aborted,
    timeout, crashed, empty-output, no-chips (headings without a chip), truncated (the table ends in the middle of a row or
    of a chip), unrecognized (anything else).
    """
    # Web pages and editors turn the blanks of a table into others.
    text = _ANSI.sub("", text or "")
    table = _Table()
    try:
        for line in text.translate(_BLANKS).split("\n"):
            table.read(line)
        table.finish()
    except _Unaccountable as exc:
        return failure(text, table.kind, str(exc))
    if not table.seen:
        return _classify(text)
    result = table.result()
    if result.get("incomplete"):
        result["excerpt"] = text[:EXCERPT_CHARS]
    return result


def failure(text, kind, reason=None, ret=None):
    """The dict of a failure (see parse_info) for a caller that knows its kind: a deadline passed, no such file."""
    result = {"error": True, "kind": kind, "chips": [], "processes": [], "excerpt": text[:EXCERPT_CHARS]}
    if reason:
        result["reason"] = reason
    if ret is not None:
        result["ret"] = ret
    if kind not in _STATUS_UNKNOWN:
        result["exit_nonzero"] = True
    return result


def _classify(text):
    """Name the failure of an output that holds no table."""
    if not text.strip():
        return failure(text, "empty-output")
    code = _RET.search(text)
    ret = int(code.group(1)) if code else None
    kind = KIND_BY_CODE.get(ret)
    if kind is None:
        lower = text.lower()
        kind = next((name for piece, name in KIND_BY_TEXT if piece in lower), None)
    if kind is None:
        kind = "unrecognized" if ret is None else "command-failed"
    return failure(text, kind, ret=ret)


class _Table(object):
    """Collects one ``npu-smi info`` table line by line."""

    def __init__(self):
        self.kind = "unrecognized"
        self.seen = False
        self.versions = (None, None)
        self.first = self.second = self.process = None   # heading rows: list of cells, each a list of (field, kind)
        self.chips = []
        self.processes = []
        self.idle = []
        self.process_table = False
        self.incomplete = []
        self.pending = None       # the chip whose first row came and whose second row has not
        self.above = None         # the chip above, while only a thin rule (not "=") separates it: they are of one NPU
        self.thin = False
        self.headed = False       # the rule below the headings came
        self.rule_width = 0
        self.last_is_rule = True

    def read(self, line):
        line = line.strip("\r\t >#\ufeff")
        if not line or line[0] not in "|+":
            if self.seen and line[-1:] == "|":
                raise _Unaccountable("a row without its left border: %r" % line[:200])
            if self.seen and _RET.search(line):
                self.incomplete.append("an error inside the table: %s" % line[:200])
            return
        if line[0] == "+":
            if not line.strip("+-="):
                self.rule(line)
            return
        if len(line) < 2 or line[-1] != "|":
            self.kind = "truncated"
            raise _Unaccountable("a row without its right border: %r" % line[:200])
        self.last_is_rule = False
        self.row(line)

    def rule(self, line):
        if not self.seen:
            return
        if self.pending is not None:
            self.drop("second row of NPU %s is missing" % self.pending["npu_id"])
        if self.second and not self.process_table:
            thick = "=" in line
            if thick and self.last_is_rule and self.headed:
                self.incomplete.append("nothing between two rules: a chip without rows")
            self.thin = self.above is not None and not thick and not self.last_is_rule
            if thick:
                self.above = None
            self.headed = True
        self.last_is_rule = len(line) >= self.rule_width
        self.rule_width = max(self.rule_width, len(line))

    def row(self, line):
        if line.startswith("| npu-smi") and "Version:" in line:
            if self.seen:
                raise _Unaccountable("more than one table")
            self.seen = True
            tool, _word, driver = line[1:-1].partition("Version:")
            self.versions = tuple((None if word in _NULLS else word) for word in ("".join(tool.split()[1:2]), "".join(driver.split()[:1])))
            return
        cells = line[1:-1].split("|")
        lower = line.lower()
        if "process id" in lower and "process name" in lower:
            self.heading("process", cells, PROCESS_ROW)
            self.process_table = True
        elif self.first is None and "health" in lower and "name" in lower:
            self.heading("first", cells, FIRST_ROW)
        elif self.second is None and self.first is not None and "bus-id" in lower:
            self.heading("second", cells, SECOND_ROW)
        elif not self.seen:
            raise _Unaccountable("a row before any heading: %r" % line[:200])
        elif "no running processes" in lower:
            match = _IDLE.match(line[1:-1].strip())
            if not match:
                raise _Unaccountable("a row that no heading explains: %r" % line[:200])
            self.process_table = True
            self.idle.append(int(match.group(1)))
        elif self.process_table:
            self.process_line(cells, line)
        else:
            self.chip_line(cells, line)

    def heading(self, which, cells, labels):
        self.seen = True
        if getattr(self, which) is not None:
            raise _Unaccountable("more than one table")
        setattr(self, which, [_heading_cell(cell, labels) for cell in cells])

    def chip_line(self, cells, line):
        if self.first is None or self.second is None:
            raise _Unaccountable("a row before its heading: %r" % line[:200])
        first = _values(cells, self.first)
        second = _values(cells, self.second)
        first_fits = first is not None and first["npu_id"] is not None and not _BUS.match(first["health"] or "")
        second_fits = second is not None and (second["bus_id"] is None or _BUS.match(second["bus_id"]))
        if second is not None and not second_fits and not first_fits:
            self.incomplete.append("bus id %r has an unknown form" % second["bus_id"])
            second_fits = True
        if bool(first_fits) == bool(second_fits):
            raise _Unaccountable("a row that the headings do not explain: %r" % line[:200])
        if first_fits:
            if self.pending is not None:
                self.drop("second row of NPU %s is missing" % self.pending["npu_id"])
            if first["health"] not in HEALTH_STATES:
                self.incomplete.append("NPU %s: health %r is not one of %s" % (first["npu_id"], first["health"], ", ".join(HEALTH_STATES)))
            if self.thin and self.above["npu_id"] != first["npu_id"]:
                self.incomplete.append("after chip %s of NPU %s another chip of it is missing" % (self.above["chip_id"], self.above["npu_id"]))
            self.pending = dict.fromkeys(CHIP_KEYS)
            self.pending.update(first)
            return
        chip = self.pending
        if chip is None:
            chip = dict.fromkeys(CHIP_KEYS)
            if self.thin and None not in (self.above["chip_id"], second.get("chip_id")) and self.above["chip_id"] < second["chip_id"]:
                chip["npu_id"] = self.above["npu_id"]
            self.incomplete.append("first row of the chip with bus id %s is missing: its health is unknown" % second["bus_id"])
        chip.update(second)
        self.add(chip)

    def drop(self, sentence):
        self.incomplete.append(sentence)
        self.add(self.pending)

    def add(self, chip):
        self.chips.append(chip)
        self.above, self.thin = chip, False
        self.pending = None

    def process_line(self, cells, line):
        if self.process is None:
            raise _Unaccountable("a process before its heading: %r" % line[:200])
        values = _values(cells, self.process)
        if values is None or values.get("npu_id") is None or values.get("pid") is None:
            raise _Unaccountable("a process row that the headings do not explain: %r" % line[:200])
        self.processes.append({
            "npu_id": values["npu_id"], "chip_id": values.get("chip_id"), "pid": values["pid"],
            "name": values.get("name") or "", "mem_mb": values.get("mem_mb"),
        })

    def finish(self):
        if not self.seen:
            return
        if self.pending is not None:
            self.kind = "truncated"
            raise _Unaccountable("the table ends after the first row of NPU %s" % self.pending["npu_id"])
        if not self.chips:
            self.kind = "no-chips" if self.last_is_rule and self.first and self.second else "truncated"
            raise _Unaccountable("headings, but no chip")
        if not self.last_is_rule:
            self.incomplete.append("the table ends without its closing rule")
        keys = [(chip["npu_id"], chip["chip_id"]) for chip in self.chips if None not in (chip["npu_id"], chip["health"], chip["bus_id"])]
        if len(set(keys)) != len(keys):
            raise _Unaccountable("the same chip twice")
        known = set(chip["npu_id"] for chip in self.chips)
        strange = sorted(set(p["npu_id"] for p in self.processes).union(self.idle) - known)
        if strange and None not in known:
            self.incomplete.append("processes of NPU %s, which has no row" % ", ".join(map(str, strange)))
        if self.versions[0] is None:
            self.incomplete.append("the version line is missing")

    def result(self):
        result = {
            "npu_smi_version": self.versions[0], "driver_version": self.versions[1], "chips": self.chips, "processes": self.processes,
            "process_table": self.process_table, "idle_npus": self.idle,
        }
        if self.incomplete:
            result["incomplete"] = self.incomplete
        return result


def _heading_cell(cell, labels):
    """One heading cell -> [(field, kind)]; an unknown heading is unaccountable."""
    lower = cell.lower()
    found = []
    at = 0
    while True:
        rest = lower[at:].lstrip()
        if not rest:
            return found
        at = len(lower) - len(rest)
        for label, (field, kind) in labels:
            if rest.startswith(label) and rest[len(label):len(label) + 1] in ("", " "):
                found.append((field, kind))
                at += len(label)
                break
        else:
            raise _Unaccountable("an unknown heading: %r" % cell.strip()[:80])
        if len(found) > 16:
            raise _Unaccountable("too many headings: %r" % cell.strip()[:80])


def _words(cell):
    """Words of a cell; ``used / total`` is one word however it is spaced."""
    return "/".join(piece.strip() for piece in cell.replace("N/A", "NA").split("/")).split()


def _values(cells, heading):
    """Cells of a row -> {field: value} by a heading row, or None when the row does not have that form."""
    if len(cells) != len(heading):
        return None
    values = {}
    for cell, fields in zip(cells, heading):
        if fields and fields[-1][1] == "text" and len(fields) == 1:
            text = cell.strip()
            values[fields[0][0]] = None if text in _NULLS or text == "N/A" else text
            continue
        words = _words(cell)
        if len(fields) > 1 and fields[-1][1] == "text" and len(words) > len(fields):
            words = words[:len(fields) - 1] + [" ".join(words[len(fields) - 1:])]
        if not words:
            words = [""] * len(fields)
        if len(words) != len(fields):
            return None
        for (field, kind), word in zip(fields, words):
            if not _convert(values, field, kind, word):
                return None
    return values


def _convert(values, field, kind, word):
    if kind == "pair":
        used, total = PAIR_FIELDS[field]
        parts = word.split("/")
        if len(parts) == 1 and word in _NULLS:
            parts = ["", ""]
        return len(parts) == 2 and _convert(values, used, "int", parts[0]) and _convert(values, total, "int", parts[1])
    if word in _NULLS:
        values[field] = None
    elif kind == "text":
        values[field] = word
    elif kind == "int" and _INT.match(word):
        values[field] = int(word)
    elif kind == "number" and _NUMBER.match(word):
        values[field] = float(word) if field == "power_w" or "." in word else int(word)
    else:
        return False
    return True


def parse_mapping(text):
    """Read ``npu-smi info -m``: which logic id the driver gives to each chip.

    Returns {"chips": [{"npu_id", "slot_id", "chip_id", "logic_id", "phy_id", "name"}]} (ints or None; the cards' controllers are left
    out; Ascend 950 prints slots and no logic ids), or a failure as of ``parse_info``.
    """
    text = _ANSI.sub("", text or "")
    labels = (("npu id", "npu_id"), ("slot id", "slot_id"), ("chip id", "chip_id"), ("chip logic id", "logic_id"), ("chip phy-id", "phy_id"),
              ("chip name", "name"))
    heading = None
    chips = []
    for line in text.split("\n"):
        if heading is None:
            lower = line.lower()
            found = sorted((lower.find(label), field) for label, field in labels if label in lower)
            if len(found) >= 3 and "npu id" in lower and "chip name" in lower:
                heading = [field for _at, field in found]
            continue
        words = line.split()
        if not words:
            continue
        if len(words) > len(heading) and heading[-1] == "name":
            words = words[:len(heading) - 1] + [" ".join(words[len(heading) - 1:])]
        if len(words) != len(heading) or not _INT.match(words[0]):
            return failure(text, "unrecognized", "a row that the heading does not explain: %r" % line[:200])
        row = dict.fromkeys(field for _label, field in labels)
        for field, word in zip(heading, words):
            if not _convert(row, field, "text" if field == "name" else "int", word):
                return failure(text, "unrecognized", "a row that the heading does not explain: %r" % line[:200])
        if row["name"] not in ("Mcu", "3559"):   # the card's own controllers
            chips.append(row)
    if heading is None:
        return _classify(text)
    if not chips:
        return failure(text, "no-chips", "headings, but no chip")
    return {"chips": chips}


# On ``-t common`` the chip's id stands above its block, on these below it.
CHIP_ID_BELOW = ("usages", "ecc", "proc-mem")
_PROCESS = re.compile(r"Process id:([0-9]{1,9})\s{1,8}Process name:(.{0,256}?)\s{1,8}Process memory\(MB\):([0-9]{1,9})\s*\Z")


def parse_key_values(text, query):
    """Read ``npu-smi info -t <query> -i <npu>`` (board, health, common, usages, ecc, proc-mem).

    Returns {"npu": {key: value as printed}, "chips": [{"chip_id": int or None, "values": {...}, "processes": [{"pid", "name", "mem_mb"}]}]},
    or a failure as of ``parse_info``. Where no chip id is printed, a single block is under ``npu`` (Ascend 950, board), several are chips of unknown id.
    """
    text = _ANSI.sub("", text or "")
    npu, blocks, block = {}, [], _block()
    found = False
    for line in text.split("\n"):
        line = line.strip()
        process = _PROCESS.match(line)
        key, colon, value = line.partition(":")
        # A key is padded up to its colon; "npu-smi: command not found" is not one.
        found = found or bool(process) or line == "No process in device." or (colon and key.endswith(" "))
        key, value = key.strip(), value.strip()
        if process:
            block["processes"].append({"pid": int(process.group(1)), "name": process.group(2).strip(), "mem_mb": int(process.group(3))})
        elif not colon or not key:
            continue
        elif key in ("NPU ID", "Chip Count"):
            npu[key] = value
        elif key == "Chip ID" and _INT.match(value):
            if query in CHIP_ID_BELOW:
                block["chip_id"] = int(value)
                blocks.append(block)
                block = _block()
            else:
                blocks.append(block)
                block = _block(int(value))
        else:
            if key in block["values"]:   # the next chip, where no id is printed
                blocks.append(block)
                block = _block()
            block["values"][key] = value
    if not found:
        return _classify(text)
    blocks = [block for block in blocks + [block] if block["values"] or block["processes"] or block["chip_id"] is not None]
    if blocks and blocks[0]["chip_id"] is None and not blocks[0]["processes"] and (len(blocks) == 1 or blocks[1]["chip_id"] is not None):
        npu.update(blocks.pop(0)["values"])
    return {"npu": npu, "chips": blocks}


def _block(chip_id=None):
    return {"chip_id": chip_id, "values": {}, "processes": []}
