# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull of an image as a detached job of its host, so that it outlives the connection and says how far it is. This file does I/O."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_supply, job_host, registry

PASSWORD = "FLEET_REGISTRY_PASSWORD"


def job_id(options):
    """The same for each run that wants the same image, so that the next one finds what the last one began."""
    wanted = "%s@%s%s" % (options["reference"], options["digest"] or "", options.get("bundle") or "")
    return "image-" + hashlib.sha256(wanted.encode("utf-8")).hexdigest()[:12]


def job_params(options, **more):
    """Parameters of the job."""
    return dict(job_host.DEFAULTS, id=job_id(options), state_directory=options["state_directory"], systemctl=options["systemctl"],
                systemd_run=options["systemd_run"], **dict({"state": "started", "argv": [], "files": {}, "secrets": {}}, **more))


def begin(arguments):
    """Start the job, or find it at work.

    :param dict arguments: "options" of module image, "program": text of the job's program.
    :returns: the module's result when the image is here, with "job": None; else {"job"}.
    """
    options = dict(arguments["options"])
    name, path = container_cli.find_engine(options["engine"], options["engine_path"])
    found = None if options.get("bundle") else image_supply.present(container_cli.Engine(name, path), options)
    if found:
        return dict(image_supply.empty(), job=None, elapsed_s=0.0, **found)
    password = options.pop("registry_password")
    started, dummy = job_host.run(job_params(
        options, argv=[sys.executable, "program.py"], rerun=True, timeout_s=options["timeout_s"] + 60, secrets={PASSWORD: password} if password else {},
        files={"program.py": arguments["program"], "request.json": json.dumps(options, sort_keys=True)}), False)
    return {"job": started["job"]}


def main(arguments):
    """What the job's program runs. :returns: whether it failed; the rest is result.json."""
    folder = arguments.get("folder") or os.path.dirname(os.path.abspath(sys.argv[0]))
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as stream:
        options = dict(json.load(stream), registry_password=os.environ.get(PASSWORD))
    teller = Teller(lambda text: job_host.write_text(os.path.join(folder, "progress"), text + "\n"), time.monotonic)
    teller.say("asking the registries")
    result = image_supply.answer(options, False, folder, teller)
    job_host.write_text(os.path.join(folder, "result.json"), json.dumps(result))
    return {"failed": bool(result.get("failed")), "msg": result.get("msg", "")}


class Teller:
    """Turns what an engine shows of a pull into lines: bytes, rate, and from where."""

    WINDOW_S = 10.0

    def __init__(self, say, clock):
        self.say, self.clock = say, clock
        self.source, self.sizes, self.seen = "", {}, []

    def begin(self, source, sizes):
        """A pull begins. ``sizes``: {first digits of a layer's digest: bytes}, empty when nobody knows."""
        self.source, self.sizes, self.seen = registry.parse_reference(source)["registry"], sizes, []
        self.say("pulling from " + self.source)

    def progress(self, layers, whole):
        """``layers``: {layer: bytes that came}; ``whole``: layers that are here."""
        now, came = self.clock(), sum(layers.values())
        self.seen = [each for each in self.seen if now - each[0] <= self.WINDOW_S] + [(now, came)]
        since, before = self.seen[0]
        self.say(progress_text(layers, whole, self.sizes, (came - before) / (now - since) if now > since else None, self.source))


def progress_text(layers, whole, sizes, rate, source):
    """How far a pull is, in words."""
    here = sum(sizes.get(each, layers.get(each, 0.0)) if each in whole else layers.get(each, 0.0) for each in set(layers) | set(whole))
    total = sum(sizes.values())
    if total and here >= total:
        return "%s are here, unpacking" % megabytes(total)
    words = "%s of %s (%d %%)" % (megabytes(here), megabytes(total), 100 * here / total) if total else megabytes(here)
    return "%s%s, from %s" % (words, ", %s/s" % megabytes(rate) if rate is not None else "", source)


def megabytes(number):
    """Bytes as people read them."""
    return "%.1f GB" % (number / 1e9) if number >= 1e9 else "%.1f MB" % (number / 1e6)
