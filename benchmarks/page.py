# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured as a table, as a chart, and against the goals. Pure but for ``write``."""

from __future__ import annotations

import json
import math
import re
import statistics
from html import escape

BEGIN, END = "<!-- what `make bench` measured: begin -->", "<!-- what `make bench` measured: end -->"
TITLES = {
    "openssh": "parallel OpenSSH, one shell script", "deploy": "**`deploy_gemma4.yml`, unchanged**", "preflight": "**`playbooks/preflight.yml`**",
    "pyinfra": "pyinfra", "mitogen": "Ansible's own tasks with mitogen", "tuned": "Ansible's own tasks, tuned", "naive": "Ansible's own tasks, default settings"}
HEADINGS = ("Way", "wall s (spread)", "× OpenSSH", "controller CPU s/host", "controller MiB", "host CPU s/host", "connections/host", "commands/host")


def middle(case, key):
    """The median of one figure over the runs of a case; None when it never ran."""
    values = [run[key] for run in case["runs"]]
    return statistics.median(values) if values else None


def floor_of(case, cases):
    """The case of parallel OpenSSH that stood beside this one."""
    same = ("hosts", "round_trip_ms", "kind")
    found = [each for each in cases if each["way"] == "openssh" and all(each[key] == case[key] for key in same)]
    return found[0] if found else None


def ratio(case, cases):
    """How many times what parallel OpenSSH took: the median of the pairs that ran one after the other, or of the medians where runs are not as many."""
    floor = floor_of(case, cases)
    if not floor or not floor["runs"] or not case["runs"]:
        return None
    if len(floor["runs"]) == len(case["runs"]):
        return statistics.median(one["wall_s"] / other["wall_s"] for one, other in zip(case["runs"], floor["runs"]))
    return middle(case, "wall_s") / middle(floor, "wall_s")


def rows(cases):
    """The cells of the table of one group of cases, headings first."""
    made = [HEADINGS]
    for case in cases:
        if not case["runs"]:
            made.append((TITLES[case["way"]], "does not work here: " + (case["error"] or "it was not run")) + ("",) * (len(HEADINGS) - 2))
            continue
        walls, count = sorted(run["wall_s"] for run in case["runs"]), case["hosts"]
        spread = f" ({walls[0]:.2f} … {walls[-1]:.2f})" if len(walls) > 1 else ""
        times = ratio(case, cases)
        made.append((
            TITLES[case["way"]], f"{statistics.median(walls):.2f}{spread}", "" if times is None else f"{times:.1f}", f"{middle(case, 'cpu_s') / count:.3f}",
            f"{middle(case, 'memory_mib'):.0f}", f"{middle(case, 'node_cpu_s') / count:.2f}", f"{middle(case, 'connections') / count:.1f}",
            f"{middle(case, 'commands') / count:.1f}"))
    return made


def groups(cases):
    """[(title, its cases)], in the order of measuring."""
    found = {}
    for case in cases:
        what = "An unchanged deploy" if case["kind"] == "deploy" else "Survey and preflight"
        found.setdefault(f"{what}, {case['hosts']} hosts, round-trip time {case['round_trip_ms']} ms", []).append(case)
    return list(found.items())


def goals(measured):
    """[(what, found or None, goal as text, whether it is met; None when nothing was found)]."""
    cases, planning = measured["cases"], measured["planning"]

    def pick(way, kind, far=0):
        found = [case for case in cases if case["way"] == way and case["kind"] == kind and case["round_trip_ms"] == far and case["runs"]]
        return max(found, key=lambda case: case["hosts"]) if found else None

    deploy, naive, preflight = pick("deploy", "deploy"), pick("naive", "deploy"), pick("preflight", "preflight")
    made = []

    def add(what, found, bound, unit="", least=False):
        met = None if found is None else found >= bound if least else found <= bound
        made.append((what, None if found is None else f"{found:.2f}{unit}", f"{'≥' if least else '≤'} {bound:g}{unit}", met))

    count = deploy["hosts"] if deploy else 0
    add(f"unchanged deploy of {count} hosts, times parallel OpenSSH", deploy and ratio(deploy, cases), 2.5)
    add("the same, times faster than Ansible's own tasks on default settings",
        naive and deploy and middle(naive, "wall_s") / middle(deploy, "wall_s"), 12, least=True)
    add("commands that an unchanged deploy sends to a host", deploy and middle(deploy, "commands") / count, 3)
    count = preflight["hosts"] if preflight else 0
    add(f"survey and preflight of {count} hosts, times parallel OpenSSH", preflight and ratio(preflight, cases), 1.3)
    add("the same, memory of the controller", preflight and middle(preflight, "memory_mib"), 300, " MiB")
    add("CPU of a survey on its host, beside npu-smi's", planning["survey_cpu_s"] - planning["npu_smi_cpu_s"], 0.3, " s")
    add(f"plan of {planning['hosts']} hosts and {planning['instances']} instances from saved surveys", planning["plan_s"], 3, " s")
    return made


def table(lines):
    """Rows as Markdown, the first as headings."""
    lines = [tuple(str(cell) for cell in line) for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ("---",) * len(lines[0]), *lines[1:]])


def text(measured):
    """The whole passage for docs/performance.md."""
    others = [run["other_cpu_share"] for case in measured["cases"] for run in case["runs"]]
    load = f"{statistics.median(others):.0%} of the cores in the middle, {max(others):.0%} at most" if others else "unknown"
    parts = [
        f"Measured {measured['made']} by `make bench` on {measured['cores']} cores ({measured['machine']}), controller and host on the same machine, new "
        f"connections in every run. Meanwhile other work on the machine used {load}. All addresses are one simulated host with two instances.",
        table([("Goal", "found", "wanted", "met")] + [(what, found or "not measured", bound, {True: "yes", False: "**no**", None: ""}[met])
                                                      for what, found, bound, met in goals(measured)]),
        "![wall time of every way](performance/scale.svg)"]
    parts += [f"**{title}**\n\n{table(rows(cases))}" for title, cases in groups(measured["cases"])]
    return "\n\n".join(parts)


def put(document, passage):
    """A document with its measured passage replaced. :raises ValueError: when it has no place for one."""
    if BEGIN not in document or END not in document:
        raise ValueError("docs/performance.md has no place for the figures: put these two lines there\n%s\n%s" % (BEGIN, END))
    return re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda found: f"{BEGIN}\n\n{passage}\n\n{END}", document, flags=re.DOTALL)


def chart(cases):
    """Bars of every way, one group below the other, on one logarithmic scale of seconds, as SVG."""
    shown = [(title, [case for case in each if case["runs"]]) for title, each in groups(cases)]
    shown = [(title, each) for title, each in shown if each]
    values = [middle(case, "wall_s") for _title, each in shown for case in each]
    if not values:
        return ""
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values) * 1.01))
    left, width, line = 330, 480, 22

    def place(seconds):
        return left + width * math.log10(seconds / low) / math.log10(high / low)

    parts, top = [], 40
    for title, each in shown:
        parts.append(f'<text x="12" y="{top}" font-weight="bold">{escape(title)}</text>')
        for case in each:
            top += line
            seconds, ours = middle(case, "wall_s"), case["way"] in ("deploy", "preflight")
            walls = [run["wall_s"] for run in case["runs"]]
            name = TITLES[case["way"]].replace("*", "").replace("`", "")
            parts.append(f'<text x="{left - 8}" y="{top}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{left}" y="{top - 12}" width="{place(seconds) - left:.1f}" height="15" fill="{"#0b6e4f" if ours else "#9aa5b1"}"/>')
            parts.append(f'<path d="M{place(min(walls)):.1f} {top - 4.5} H{place(max(walls)):.1f}" stroke="#1b1f24" stroke-width="1.5"/>')
            parts.append(f'<text x="{max(place(seconds), place(max(walls))) + 6:.1f}" y="{top}">{seconds:.1f} s</text>')
        top += 36
    marks, decade = [], low
    while decade <= high:
        x = place(decade)
        marks.append(f'<path d="M{x:.1f} 20 V{top - 30}" stroke="#d0d7de"/><text x="{x:.1f}" y="{top - 14}" text-anchor="middle">{decade:g} s</text>')
        decade *= 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{top}" viewBox="0 0 900 {top}" font-family="sans-serif" font-size="13" '
            f'fill="#1b1f24">\n<title>Wall time of every way, seconds on a logarithmic scale; black: spread of the runs</title>\n'
            f'<rect width="900" height="{top}" fill="#ffffff"/>\n' + "\n".join(marks + parts) + "\n</svg>\n")


def write(measured, docs):
    """Put everything into the documentation."""
    page, folder = docs / "performance.md", docs / "performance"
    document = put(page.read_text(encoding="utf-8"), text(measured))
    folder.mkdir(exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "scale.svg").write_text(chart(measured["cases"]), encoding="utf-8")
    page.write_text(document, encoding="utf-8")
