# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports of synthetic runs, and a real browser that opens them without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import synthetic_run
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import report, workspace

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = Path(__file__).resolve().parents[2] / ".cache" / "test" / "screenshots"
# Runs within the page and tells what a person would see.
PROBE = """<script>
window.problems = []; window.addEventListener("error", function (event) { problems.push(String(event.message)); });
document.addEventListener("securitypolicyviolation", function (event) { problems.push("refused: " + event.violatedDirective); });
function luminance(color) { return color.slice(0, 3).map(function (v) { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); })
  .reduce(function (sum, v, index) { return sum + v * [0.2126, 0.7152, 0.0722][index]; }, 0); }
function rgb(text) { return text.match(/[\\d.]+/g).map(Number); }
function behind(node) { for (; node; node = node.parentElement) { var color = rgb(getComputedStyle(node).backgroundColor);
  if (color.length < 4 || color[3] > 0) return color; } return [255, 255, 255]; }
function contrast(node) { var a = luminance(rgb(getComputedStyle(node).color)), b = luminance(behind(node)); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }
addEventListener("load", function () { setTimeout(function () {
  var faint = [], wide = [];
  document.querySelectorAll("body *").forEach(function (node) {
    if (["SCRIPT", "STYLE"].indexOf(node.tagName) >= 0 || !node.checkVisibility() || node.closest(".uplot")) return;
    var own = Array.prototype.some.call(node.childNodes, function (child) { return child.nodeType === 3 && child.data.trim(); });
    if (own && contrast(node) < 4.5) faint.push(node.tagName + "." + node.className + " " + node.textContent.slice(0, 30) + " " + contrast(node).toFixed(2));
    if (!node.closest(".scroll, pre") && node.getBoundingClientRect().right > innerWidth + 1) wide.push(node.tagName + "." + node.className);
  });
  var drawn = Array.prototype.map.call(document.querySelectorAll("canvas"), function (canvas) {
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(function (value) { return value > 0; }); });
  var find = document.getElementById("find"), left = null;
  if (find) { find.value = "a2-17"; find.dispatchEvent(new Event("input"));
    left = Array.prototype.filter.call(document.querySelectorAll(".fleet > details"), function (one) { return !one.hidden; }).map(function (one) {
      return one.querySelector("strong").textContent; }); find.value = ""; find.dispatchEvent(new Event("input")); }
  window.dispatchEvent(new Event("beforeprint"));
  var told = {problems: problems, faint: faint, wide: wide, drawn: drawn, found: left, width: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
    verdict_bottom: document.querySelector(".verdict").getBoundingClientRect().bottom, text: document.querySelector("header").innerText,
    first: (document.querySelector(".fleet strong") || {}).textContent, unnamed: Array.prototype.filter.call(document.querySelectorAll("input, nav, section:not([id])"),
      function (one) { return !one.getAttribute("aria-label") && !(one.labels && one.labels.length); }).length,
    folded_bad: document.querySelectorAll(".fleet .is-bad:not([open])").length};
  parent.postMessage(JSON.stringify(told), "*");
}, 300); });
</script>"""
FRAME = """<!DOCTYPE html><body style="margin:0"><iframe src="probed.html" style="border:0;width:%dpx;height:%dpx"></iframe><pre id="told"></pre>
<script>addEventListener("message", function (event) { document.getElementById("told").textContent = event.data; });</script>"""


class Browser:
    """Chromium without a window, a network and a profile of its own."""

    def __init__(self, program, home):
        self.program, self.home = program, home

    def run(self, *arguments):
        done = subprocess.run([self.program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000", "--disable-extensions",
                               "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self.home}", *arguments], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    @staticmethod
    def scheme(dark):
        return ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]

    def look(self, page, width=1280, height=900, dark=False):
        """What a person sees of a page at that width."""
        (page.parent / "probed.html").write_text(page.read_text().replace("<style>", PROBE + "<style>", 1))
        frame = page.parent / "frame.html"
        frame.write_text(FRAME % (width, height))
        text = self.run(*self.scheme(dark), f"--window-size={max(width, 520)},{height}", "--dump-dom", frame.as_uri())
        told = re.search(r'<pre id="told">(.*?)</pre>', text, re.DOTALL)
        assert told and told.group(1), "the page told nothing"
        return json.loads(html.unescape(told.group(1)))

    def shoot(self, page, name, width=1280, height=1800, dark=False):
        """A picture below .cache/test/screenshots, for people."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        frame = page.parent / "shot.html"
        frame.write_text((FRAME % (width, height)).replace("probed.html", page.name))
        self.run(*self.scheme(dark), f"--window-size={width},{height}", f"--screenshot={SHOTS / (name + '.png')}", frame.as_uri())
        return SHOTS / (name + ".png")

    def print(self, page, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.run("--no-pdf-header-footer", f"--print-to-pdf={SHOTS / (name + '.pdf')}", page.as_uri())
        return SHOTS / (name + ".pdf")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if not program:
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    return Browser(program, tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The page of a kind of run."""
    made = {}

    def of(kind, *arguments, **more):
        key = (kind, arguments, tuple(sorted(more.items())))
        if key not in made:
            files, surveys = synthetic_run.KINDS[kind](*arguments, **more)
            folder = tmp_path_factory.mktemp(kind) / "20260922-120000-1"
            synthetic_run.put(folder, files)
            loading, workspace.load = workspace.load, lambda name, default=None: surveys
            try:
                report.conclude(folder)
            finally:
                workspace.load = loading
            made[key] = folder / "index.html"
        return made[key]
    return of
