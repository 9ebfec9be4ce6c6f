#!/usr/bin/env python
# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The product beside its peers at fleet scale: `make bench`.

Needs this machine as the rehearsal fleet does (root, Docker). Raises a fleet of its own with one simulated host, gives that as many addresses
as the inventory has hosts, and lets every way look at all of them, turn by turn. The table, the chart and what was measured go to docs/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
import time

import ground
import measure
import page
import planning_speed
import ways


def cases(arguments):
    """What is measured: (hosts, round-trip time in ms, kind, ways, runs). The dear ways run once, and with the fewest hosts only."""
    few, many = arguments.hosts[0], arguments.hosts[1:]
    quick = ["openssh", "deploy"] + ([] if arguments.only_ours else ["pyinfra"])
    dear = [] if arguments.only_ours else ["mitogen", "tuned", "naive"]
    yield few, 0, "deploy", quick, arguments.runs
    yield few, 0, "deploy", dear, 1
    for number, count in enumerate(many):
        runs = max(1, arguments.runs - 1 - number)
        yield count, 0, "preflight", ["openssh", "preflight"], runs
        yield count, 0, "preflight", [] if arguments.only_ours else ["pyinfra"], 1
    if arguments.round_trip_ms:
        yield few, arguments.round_trip_ms, "deploy", quick, max(1, arguments.runs - 1)
        yield few, arguments.round_trip_ms, "deploy", [way for way in dear if way == "tuned"], 1


def run(way, count, kind, pid, carrier, idle):
    """One run of one way. :returns: what it cost, or {"error": why it does not work}."""
    argv, options = ways.command(way, count, kind == "deploy")
    ground.mark()
    found = measure.command(argv, leave_out=[carrier] if carrier else [], node_s=lambda: ground.node_s(pid), **options)
    connections, commands = ground.asked()
    output, rc = found.pop("output"), found.pop("rc")
    changed = sum(int(number) for number in re.findall(r"changed=(\d+)", output)) if way in ways.OURS else 0
    if rc or changed or connections < count:
        (ground.WORK / f"{way}-{count}.log").write_text(output, encoding="utf-8")
        if way in ways.OURS + ("openssh",):
            why = f"{changed} changes" if changed else f"exit {rc}, {connections} connections to {count} hosts"
            raise ground.GroundError(f"{page.TITLES[way]}: {why}; {ground.WORK / f'{way}-{count}.log'} has what it said")
        return {"error": reason(output) or f"exit {rc}, {connections} connections to {count} hosts"}
    found.update(node_cpu_s=max(0.0, found["node_cpu_s"] - idle * found["wall_s"]), connections=connections, commands=commands)
    return {key: round(value, 4) for key, value in found.items()}


def reason(output):
    """The line that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"error|fatal|not supported", line, re.IGNORECASE)]
    return lines[0][:200] if lines else ""


def measure_all(arguments, pid):
    """:returns: [{"hosts", "round_trip_ms", "kind", "way", "runs": [...], "error"}]."""
    idle = ground.idle_share(pid)
    made = []
    for count, far_ms, kind, chosen, runs in cases(arguments):
        entries = [{"hosts": count, "round_trip_ms": far_ms, "kind": kind, "way": way, "runs": [], "error": None} for way in chosen]
        made += entries
        with ground.far(pid, far_ms) as carrier:
            for _number in range(runs):
                for entry in entries:
                    if entry["error"]:
                        continue
                    found = run(entry["way"], count, kind, pid, carrier, idle)
                    if "error" in found:
                        entry["error"] = found["error"]
                    else:
                        entry["runs"].append(found)
                    said = found.get("error") or "{wall_s:.2f} s, {memory_mib:.0f} MiB, {other_cpu_share:.0%} of the CPU used by others".format(**found)
                    print(f"{count} hosts, {far_ms} ms: {page.TITLES[entry['way']]}: {said}", flush=True)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="16 64 256", help="how many hosts; the first number is that of the deploys, the others of surveys")
    parser.add_argument("--runs", type=int, default=3, help="runs of each quick way with the fewest hosts; with more hosts there are fewer")
    parser.add_argument("--round-trip-ms", type=int, default=100, help="the long way; 0 leaves it out")
    parser.add_argument("--only-ours", action="store_true", help="only the product and parallel OpenSSH")
    parser.add_argument("--no-docs", action="store_true", help="print, and leave docs/ as it is")
    arguments = parser.parse_args()
    arguments.hosts = [int(word) for word in arguments.hosts.split()]
    if os.geteuid():
        sys.exit("make bench gives a simulated host addresses, which only root may: run it as root")
    ground.WORK.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        if not arguments.only_ours:
            ways.make_venv()
        pid = ground.raise_fleet()
        measure.adopt_orphans()
        measured = {
            "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "cores": os.cpu_count(), "machine": platform.machine(),
            "python": platform.python_version(), "planning": planning_speed.measure(), "cases": measure_all(arguments, pid)}
    except ground.GroundError as error:
        sys.exit(str(error))
    finally:
        ground.leave()
    measured["took_s"] = round(time.monotonic() - began)
    (ground.WORK / "scale.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    print("\n" + page.text(measured))
    if not arguments.no_docs:
        page.write(measured, ground.ROOT / "docs")


if __name__ == "__main__":
    main()
