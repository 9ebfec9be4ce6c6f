# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a host: its survey and, when asked for, whether what is installed answers. This file does I/O."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import survey_sources

LOAD_S = 5.0
# Of a look that only has to find out whether an instance answers. The first token of a 64k prompt is not asked for here.
PROOF = {"api_keys": {}, "quick": True, "rounds": 1, "first_token_s": 60.0, "gap_s": 30.0, "address": "127.0.0.1", "systemctl": "systemctl",
         "journalctl": "journalctl", "npu_smi_path": None}


def answer(arguments):
    """Look at this host.

    :param dict arguments: "survey": options of npu_info; "prove": names of instances to ask, "all" for every one, None for none; a unit that
        does not run is not asked.
        "load": whether to read what they have to do as well. "smoke": whether to ask them what deployers ask by hand as well.
    :returns: {"survey", "proof": {instance: as endpoint_gate returns it}, "load": {instance: of vllm_metrics.load}}.
    """
    kept = {}
    found = survey_sources.answer(arguments["survey"], kept)["survey"]
    result = {"survey": found, "proof": {}, "load": {}}
    wanted = arguments.get("prove")
    if not wanted:
        return result
    # A third of what a host's Python would have to load for a survey alone.
    from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, endpoint_probes, recovery, spanning, vllm_metrics

    asked = [manifest for manifest in recovery.installed(found) if manifest.get("port") and (wanted == "all" or manifest["name"] in wanted)
             and manifest["unit_state"].get("active_state") in ("active", "activating", "reloading")]
    running = {container["name"]: {"Id": container["id"], "Config": {"Labels": container["labels"]}, "State": {"Pid": container["pid"]}}
               for container in found["containers"] or () if container["state"] == "running"}
    try:
        proof, dummy = endpoint_probes.run(dict(PROOF, instances=asked, smoke=bool(arguments.get("smoke")), containers=running, kept=kept,
                                                engine=found["engine"]["name"], engine_path=found["engine"]["path"]), False)
    except (ValueError, container_cli.CommandError) as error:
        found["errors"].append({"source": "proof", "error": str(error)})
    else:
        result["proof"] = proof["instances"]
    for manifest in spanning.served(asked) if arguments.get("load") else ():
        status, text = endpoint_probes.ask(PROOF["address"], manifest["port"], "/metrics", seconds=LOAD_S)
        result["load"][manifest["name"]] = dict(vllm_metrics.load(status, text), max_num_seqs=_seats(manifest.get("arguments") or []))
    return result


def _seats(arguments):
    """How many requests an instance takes at once, as its arguments say; None when they don't."""
    try:
        return int(arguments[arguments.index("--max-num-seqs") + 1])
    except (ValueError, IndexError):
        return None
