# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a run, as files on the controller."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections import Counter

import jinja2
from ansible import context
from ansible.utils.display import Display

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import run_report
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import workspace
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.journal import Journal, JournalError

PAGE = pathlib.Path(__file__).absolute().parent / "run_report"
PARTS = ("preflight", "plan", "run", "verify", "benchmark")
OUTER_LEVELS = 2
RANK = {"bad": 0, "unsure": 1, "good": 2}
_compact = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def save(directory, name, content):
    """Write one JSON file of the run. A report that cannot be written warns and never changes the outcome of a run."""
    write(directory, name, _lines(content, OUTER_LEVELS) + "\n")


def _lines(value, levels):
    """JSON with a line for each entry of its outer levels. Python's own indentation takes ten times as long."""
    if not levels or not value or not isinstance(value, (dict, list)):
        return _compact(value)
    margin = " " * (OUTER_LEVELS + 1 - levels)
    if isinstance(value, dict):
        return "{\n%s\n%s}" % (",\n".join("%s%s: %s" % (margin, _compact(str(key)), _lines(value[key], levels - 1)) for key in sorted(value)), margin[1:])
    return "[\n%s\n%s]" % (",\n".join(margin + _lines(each, levels - 1) for each in value), margin[1:])


def write(directory, name, text):
    """Write one file of the run, whole or not at all; as :func:`save`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f".{name}"
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, directory / name)
    except OSError as error:
        Display().warning(f"the report {directory / name} was not written: {error}")


def conclude(directory, check_mode=False, **more):
    """Write index.html, report.json, report.md and junit.xml from what a run has left in its folder; as :func:`save`.

    :param more: of the context of ``run_report.build``: "ended", "changes", "said". :returns: the report, or None.
    """
    directory = pathlib.Path(directory)
    try:
        made = run_report.build(read(directory), workspace.load("surveys", {}), dict({
            "run_id": directory.name, "title": title(), "check_mode": check_mode, "began_epoch_s": began(directory), "ended_epoch_s": time.time()}, **more))
        page = render(made)
    except Exception as error:
        # What a run left may have a shape that nobody foresaw; its outcome stands all the same.
        Display().warning(f"the report below {directory} was not written: {type(error).__name__}: {error}")
        return None
    write(directory, "report.json", json.dumps(made, ensure_ascii=False, sort_keys=True) + "\n")
    for name, text in (("index.html", page), ("report.md", run_report.markdown(made)), ("junit.xml", run_report.junit(made))):
        write(directory, name, text)
    Display().display(f"the report: {directory / 'index.html'}")
    return made


def read(directory):
    """What a run has left in its folder, by name."""
    files = {}
    for name in PARTS:
        try:
            files[name] = json.loads((directory / (name + ".json")).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            Display().warning(f"{directory / name}.json is left out of the report: {error}")
    try:
        files["journal"] = Journal(directory).events()
    except JournalError as error:
        Display().warning(f"left out of the report: {error}")
    return files


def title():
    """The playbook as it was called."""
    names = context.CLIARGS.get("args")
    return ", ".join(os.path.basename(name) for name in names) if names and not isinstance(names, str) else "a run"


def began(directory):
    """When a run began, as its folder is named."""
    try:
        return time.mktime(time.strptime(directory.name[:15], "%Y%m%d-%H%M%S"))
    except ValueError:
        return None


# -- the page ----------------------------------------------------------------------------------------------------------


def seconds(value):
    """A time that a person would say."""
    if value < 90:
        return "%.1f s" % value
    return "%d min %02d s" % divmod(round(value), 60) if value < 5400 else "%d h %02d min" % divmod(round(value / 60.0), 60)


def render(made):
    """A report as one HTML page that needs nothing else."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(seconds=seconds, clock=lambda value: time.strftime("%H:%M:%S", time.localtime(value)),
                               moment=lambda value: time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(value)))
    steps = {host["name"]: [] for host in made["hosts"]}
    for step in made["walk"]:
        steps.setdefault(step["host"], []).append(step)
    hosts = [dict(host, instances=[_instance(one) for one in host["instances"]]) for host in sorted(made["hosts"], key=lambda host: RANK[host["health"]])]
    health, status = Counter(host["health"] for host in made["hosts"]), Counter(entry["status"] for entry in made["gates"])
    lanes, first, last = _lanes(steps)
    charts = bool(made["benchmark"] and made["benchmark"]["charts"])
    return environment.get_template("index.html.j2").render(
        report=made,
        shown_hosts=hosts,
        steps=steps,
        lanes=lanes,
        lane_from=first,
        lane_to=last,
        counts=[(name, health[name]) for name in RANK if health[name]],
        gate_counts=[(name, status[name]) for name in ("fail", "unknown", "waived", "pass") if status[name]],
        chart_style=_library("uPlot.min.css") if charts else "",
        chart_library=_library("uPlot.iife.min.js") if charts else "",
    )


def _library(name):
    """A file of the chart library, with its licence before it."""
    licence = (PAGE / "uPlot.LICENSE").read_text(encoding="utf-8").strip()
    return jinja2.utils.markupsafe.Markup("/*!\n%s\n*/\n%s" % (licence, (PAGE / name).read_text(encoding="utf-8")))


def _instance(one):
    bad = one["outcome"] in run_report.BAD + ("does not answer",)
    numbers = ", ".join(device.rsplit("davinci", 1)[-1] for device in one["devices"]) or "-"
    return dict(one, numbers=numbers, look="bad" if bad else "unsure" if one["outcome"] in run_report.OUTCOMES else "good")


def _lanes(steps):
    """(a row of bars for each host, when the first begins, when the last ends)."""
    every = [step for own in steps.values() for step in own if step["elapsed_s"] is not None]
    if not every:
        return [], None, None
    first = min(step["began_epoch_s"] for step in every)
    last = max(step["began_epoch_s"] + step["elapsed_s"] for step in every)
    span, lanes = max(last - first, 0.001), []
    for host, own in steps.items():
        own = [step for step in own if step["elapsed_s"] is not None]
        if own:
            bars = [_bar(step, own, first, span) for step in own]
            ends = max(step["began_epoch_s"] + step["elapsed_s"] for step in own)
            lanes.append({"host": host, "bars": sorted(bars, key=lambda one: "outer" not in one["look"]), "took": ends - own[0]["began_epoch_s"],
                          "said": "; ".join(each["said"] for each in bars)})
    return lanes, first, last


def _bar(step, own, first, span):
    outer = step["step"] == "change" and len(own) > 1
    usual = ", usually %s" % seconds(step["expected_s"]) if step["expected_s"] is not None else ""
    return {"left": "%.2f" % (100 * (step["began_epoch_s"] - first) / span), "width": "%.2f" % (100 * step["elapsed_s"] / span),
            "look": ("outer " if outer else "") + ("wrong" if step["ok"] is False else ""),
            "said": "%s %s%s%s" % (step["step"], seconds(step["elapsed_s"]), usual, ", failed" if step["ok"] is False else "")}
