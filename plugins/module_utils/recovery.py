# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed, what to put back when a release was not proven, and how a host ended."""

from __future__ import annotations

import hashlib
import json

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import spanning
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.change import UNFINISHED
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.endpoint import sentence
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import INSTANCE_LABEL
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.release import RELEASE_LABEL, environment_text


BASE_LABEL = "vllm-ascend-fleet.base-digest"
PATCH_SET_LABEL = "vllm-ascend-fleet.patch-set"


def installed(survey, model="", previous=False):
    """The instances of ours that a survey found on a host, as their manifests.

    :param str model: only instances of this model, or of this name; empty for all.
    :param bool previous: only those that have a release to go back to.
    :returns: a list of manifests in the order of their names, each with "release": {"id"} and "unit_state".
    """
    result = []
    for name, found in sorted(((survey or {}).get("instances") or {}).items()):
        manifest = dict(found.get("manifest") or {}, name=name)
        if (model and model not in (name, manifest.get("model"))) or (previous and not found.get("previous")):
            continue
        manifest.update(release={"id": found.get("release")}, unit_state=found.get("unit") or {})
        result.append(manifest)
    return result


def without(survey, names):
    """A survey as it will be once some instances of ours are gone: their containers, chips and ports are free in it.

    :param dict survey: it is not changed.
    :param names: of the instances.
    """
    if not names or not survey or survey.get("unreachable"):
        return survey
    gone = [c.get("name") for c in survey.get("containers") or [] if (c.get("labels") or {}).get(INSTANCE_LABEL) in names]
    result = dict(survey, instances=dict((name, found) for name, found in (survey.get("instances") or {}).items() if name not in names))
    if survey.get("containers") is not None:
        result["containers"] = [c for c in survey["containers"] if c.get("name") not in gone]
    result["ports"] = dict((port, dict(state, free=True, listener=None) if (state.get("listener") or {}).get("instance") in names else state)
                           for port, state in (survey.get("ports") or {}).items())
    result["chips"] = []
    for chip in survey.get("chips") or []:
        holders = chip.get("holders") or []
        if set(holders) & set(gone):
            left = [process for process in chip.get("processes") or [] if process.get("container") and process["container"] not in gone]
            # How much memory stays in use nobody can tell before they are gone.
            chip = dict(chip, holders=[name for name in holders if name not in gone], processes=left, hbm_used_mib=None)
        result["chips"].append(chip)
    return result


def is_left_over(survey):
    """Whether a host was looked at, has no instance of ours, and holds no lease of a rollout that runs: then nothing needs its state directory."""
    lease = (survey or {}).get("lease") or {}
    return bool(survey) and not survey.get("unreachable") and not survey.get("instances") and not (lease.get("owner") and not lease.get("released"))


def our_images(survey):
    """References of the images on a host that exist because of us: those we built, their bases, and those that our instances name.

    We pull by digest, so a base that carries a tag was somebody else's wish and stays, as does an image that another's container uses.
    """
    named = set(manifest.get("image_reference") for manifest in installed(survey))
    bases = set((image.get("labels") or {}).get(BASE_LABEL) for image in (survey or {}).get("images") or [])
    bases.update((reference or "").partition("@")[2] for reference in named)
    result = set()
    foreign = [c.get("image") or "" for c in (survey or {}).get("containers") or [] if INSTANCE_LABEL not in (c.get("labels") or {})]
    for image in (survey or {}).get("images") or []:
        digests = image.get("digests") or []
        names = digests + (image.get("tags") or [])
        if any(used in names or (used and _bare(image.get("id")).startswith(_bare(used))) for used in foreign):
            continue
        base = not image.get("tags") and bases & set(digest.partition("@")[2] for digest in digests)
        if PATCH_SET_LABEL in (image.get("labels") or {}) or named & set(digests) or base:
            result.update(digests)
            result.update(image.get("tags") or [])
    return sorted(result)


def _bare(identity):
    return (identity or "").replace("sha256:", "")


def way_back(surveys, model="", hosts=None):
    """A plan that brings what runs back to what ran before it.

    :param str model: only instances of this model, or of this name; empty for all. :param hosts: only these, None for all.
    :returns: (plan, differences) in the shapes of ``plan.build`` and ``plan_text.differences``, of the hosts that have something to go back to; the plan
        also names what else runs, which counts for the fleet's capacity.
    """
    made, differences = {"schema": 1, "hosts": {}, "images": {}}, {}
    for host, survey in surveys.items():
        if (survey or {}).get("unreachable"):
            continue
        instances = [dict(each, image=each.get("image_reference")) for each in installed(survey) if each.get("port")]
        made["hosts"][host] = {"instances": instances, "notes": []}
        back = [each for each in installed(survey, model, True) if hosts is None or host in hosts]
        if back:
            differences[host] = dict(
                (
                    each["name"],
                    {"action": "replace", "before": survey["instances"][each["name"]]["release"], "after": survey["instances"][each["name"]]["previous"]},
                )
                for each in back
            )
    told = dict((host, differences.get(host)) for host in made["hosts"])
    made["hash"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8")).hexdigest()
    return made, differences


def secret_text(api_key):
    """What the secret's file of an instance holds, None when there is to be none."""
    return environment_text({"VLLM_API_KEY": api_key}) if api_key else None


def has_work(entry, differences, proof, survey=None):
    """Whether a host is not yet what its plan says: something differs, or does not answer.

    :param dict entry: of the plan's hosts. :param dict differences: of plan_text.differences for this host.
    :param proof: {instance: as endpoint_gate returned it}, None when nobody was asked.
    :param survey: of the host; one that a change was cut off on has work in any case.
    """
    if ((survey or {}).get("state") or {}).get("state") in UNFINISHED and entry["instances"]:
        return True
    return any(differences[instance["name"]]["action"] != "keep" or not ((proof or {}).get(instance["name"]) or {}).get("ready")
               for instance in entry["instances"])


def secrets(instances, api_key):
    """{instance name: {"VLLM_API_KEY": key}} for the instances that have a secret; {} without a key."""
    return dict((name, {"VLLM_API_KEY": key}) for name, key in api_keys(instances, api_key).items())


def api_keys(instances, api_key):
    """{instance name: key} for the instances that have a secret; {} without a key."""
    if not api_key:
        return {}
    return dict((instance["name"], api_key) for instance in instances if instance.get("secret"))


def summarize(plan, results, check_mode=False):
    """How each instance of a run ended.

    :param dict plan: the plan that was carried out.
    :param dict results: {host: {"differences", "proven", "failure": None or one line,
        "down": whether the release before is not proven either, "quarantined": whether its NPUs are to blame, "reverted": [name], "removed": [name],
        "address"}}.
    :returns: a list of rows: {"host", "instance", "model", "devices", "port", "patch_set", "outcome", "ready_s", "curl", "reason"};
        outcome is "unchanged", "deployed", "reverted", "down", "removed", "failed" or "not reached"; in check mode also "would build",
        "would install", "would replace" and "would start".
    """
    rows = []
    for host, entry in plan["hosts"].items():
        result = results.get(host) or {}
        for instance in entry["instances"]:
            name = instance["name"]
            proof = (result.get("proven") or {}).get(name) or {}
            action = ((result.get("differences") or {}).get(name) or {}).get("action")
            if name in result.get("reverted", ()):
                outcome = "down" if result.get("down") else "reverted"
            elif name in result.get("removed", ()):
                outcome = "removed"
            elif result.get("quarantined") and not proof.get("ready"):
                outcome = "quarantined"
            elif proof.get("ready") and not (check_mode and action != "keep"):
                outcome = "unchanged" if action == "keep" else "deployed"
            elif result.get("down"):
                outcome = "down"
            elif result.get("failure"):
                outcome = "failed"
            else:
                outcome = "would " + action if check_mode and action not in (None, "keep") else "not reached"
            rows.append({
                "host": host, "instance": name, "model": instance["model"], "devices": list(instance["devices"]), "port": spanning.shown_port(instance),
                "patch_set": (instance["patch_set"] or {}).get("name") if isinstance(instance["patch_set"], dict) else instance["patch_set"],
                "outcome": outcome, "ready_s": proof.get("elapsed_s"),
                "reason": sentence(name, proof) if proof and not proof.get("ready") and not check_mode else result.get("failure"),
                "curl": curl(result.get("address") or host, instance) if proof.get("ready") and outcome in ("unchanged", "deployed") and not spanning.is_member(
                    instance) else None,
            })
    return rows


def status_rows(host, survey, proven, model="", wanted=None):
    """What runs on a host, one row per instance, or one row that says why there is none.

    :param dict proven: {instance: {"ready", "findings"}} of a gate that asked once.
    :param wanted: {instance: action} of plan_text.differences, None when the inventory could not be planned.
    """
    empty = dict.fromkeys(
        ("instance", "model", "npus", "port", "patch_set", "set_id", "digest", "release", "previous", "since", "unit", "state", "drift", "answers")
    )
    if survey.get("unreachable"):
        return [dict(empty, host=host, unit="host: %s" % survey["error"], state="unknown")]
    rows, state = [], survey.get("state") or {}
    for manifest in installed(survey, model):
        name, found = manifest["name"], survey["instances"][manifest["name"]]
        proof = proven.get(name)
        reason = next((f for f in (proof or {}).get("findings") or () if f["status"] != "pass"), None)
        unit, patch_set = manifest["unit_state"], manifest.get("patch_set")
        rows.append(dict(
            empty, host=host, instance=name, model=manifest.get("model"),
            port=spanning.shown_port(manifest),
            npus=",".join(device.rsplit("davinci", 1)[-1] for device in manifest.get("devices") or ()),
            patch_set=patch_set.get("name") if isinstance(patch_set, dict) else patch_set,
            set_id=patch_set.get("id") if isinstance(patch_set, dict) else None,
            digest=(manifest.get("image_reference") or "").partition("@sha256:")[2][:12] or None,
            release=found.get("release"), previous=found.get("previous"), since=unit.get("active_since"), unit=unit.get("active_state"),
            state=state.get("state") or "serving", drift=drift(manifest, found, survey, state, proof, (wanted or {}).get(name)),
            answers="not asked" if proof is None else "yes" if proof.get("ready") else "no: %s" % (reason["found"] if reason else "not proven")))
    return rows or [dict(empty, host=host, unit="serves nothing", state=state.get("state"))]


def drift(manifest, found, survey, state, proof, action):
    """What of an instance is not as it was deployed, layer by layer, and whose doing it is.

    :param dict state: what the host remembers of its last change. :param action: what a deploy would do now, or None when nobody planned.
    :returns: words such as "files (the host's)", or None.
    """
    unit, layers = found.get("unit") or {}, []
    hashes = found.get("sha256") or {}
    if found.get("whole") is False or (unit.get("unit_sha256") and hashes.get(manifest.get("unit")) and unit["unit_sha256"] != hashes[manifest["unit"]]):
        layers.append("files")
    running = [c for c in survey.get("containers") or () if (c.get("labels") or {}).get(INSTANCE_LABEL) == manifest["name"] and c.get("state") == "running"]
    if running and (running[0].get("labels") or {}).get(RELEASE_LABEL) != found.get("release"):
        layers.append("container")
    if any(item.get("rule") == "endpoint.attested" and item["status"] == "fail" for item in (proof or {}).get("findings") or ()):
        layers.append("patched files")
    before, now = state.get("driver"), (survey.get("driver") or {}).get("version")
    if before and now and before != now:
        layers.append("driver %s -> %s" % (before, now))
    ours = action in ("replace", "build")
    if not layers:
        return "inventory (ours)" if ours else None
    return "%s (%s)" % (", ".join(layers), "both" if ours else "the host's")


def curl(address, instance):
    """A line that asks the instance one question when pasted; a key is named, never shown."""
    key = " -H \"Authorization: Bearer $VLLM_API_KEY\"" if instance.get("secret") else ""
    return ("curl -sS http://%s:%d/v1/chat/completions -H 'Content-Type: application/json'%s -d "
            "'{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of France?\"}],\"max_tokens\":32}'") % (
                "[%s]" % address if ":" in address else address, instance["port"], key, instance["served_model_name"])
