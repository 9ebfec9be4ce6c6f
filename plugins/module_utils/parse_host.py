# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own parser, asked in a throw-away container before anything stops. This file does I/O."""

from __future__ import annotations

import os

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments, release


def command(instance, name):
    """Arguments of the container engine that have the parser of an instance's image read its arguments."""
    line = ["run", "--rm", "--name", name, "--pull", "never", "--network", "none", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE",
            "--security-opt", "no-new-privileges", "--log-driver", "none", "--workdir", "/workspace"]
    for mount in instance.get("mounts") or ():
        line += ["--mount", "type=bind,source=%s,target=%s,readonly" % (mount["source"], mount["target"])]
    for key, value in sorted((instance.get("environment") or {}).items()):
        line += ["--env", "%s=%s" % (key, value)]
    return line + [instance["image_reference"]] + release.WITH_LIBRARY_PATH + ["vllm", "serve"] + instance["arguments"] + [arguments.PARSE_ONLY]


def read(engine, instance, timeout_s):
    """{"status", "found"} of one instance."""
    name = "vllm-ascend-parse-%s-%d" % (instance["name"], os.getpid())
    result = engine.run(command(instance, name), timeout_s=timeout_s, check=False)
    if result["timed_out"]:
        # Only the client was killed.
        engine.run(["rm", "--force", name], check=False)
        return {"status": "unknown", "found": "no end within %g s" % timeout_s}
    status, found = arguments.parser_verdict(result["rc"], result["stderr"])
    return {"status": status, "found": found}


def refusals(engine, instances, timeout_s):
    """(why something must not be started or None, [sentence on each that could not be asked], {instance: {"status", "found"}})."""
    results = dict((instance["name"], read(engine, instance, timeout_s)) for instance in instances)
    refused, unsure = [], []
    for instance in instances:
        result, words = results[instance["name"]], "%s: the parser of %s" % (instance["name"], instance["image_reference"])
        if result["status"] == "fail":
            refused.append("%s refuses its arguments: %s" % (words, result["found"]))
        elif result["status"] == "unknown":
            unsure.append("%s could not be asked: %s" % (words, result["found"]))
    sentence = "; ".join(refused) + "; correct them in the inventory (plan.yml shows from where each comes); nothing was stopped"
    return sentence if refused else None, unsure, results
