# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release: the unit, the environment and the manifest of one instance, and the id that stands for them. Controller only."""

from __future__ import annotations

import functools
import json
import os
import re

import jinja2

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release as domain
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.survey import release_id

TEMPLATE = "vllm-ascend.service.j2"
TEMPLATE_DIRECTORY = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "change", "templates")
# Root inside the container must open devices that belong to uid 1000 (mode 0660); nothing else of root's powers is needed.
# Source: Project-HAMi/ascend-device-plugin#139.
CAPABILITIES = ("DAC_OVERRIDE",)
# What a later reader of the host (status, rollback, the prover) needs to know of a release.
MANIFEST = ("name", "model", "served_model_name", "unit", "container", "image", "image_reference", "patch_set", "devices", "chips", "port",
            "tensor_parallel_size", "weights", "max_model_len", "arguments", "environment", "ready_timeout_s", "shutdown_timeout_s",
            "stop_timeout_s", "stability_window_s", "secret", "sanity", "expected_answer")

# Remove what a killed client left behind, if it is ours; a container of somebody else is named and left alone.
# No Go template here: a release may travel through Ansible's variables, which would read its braces.
CLEAR_STALE = """\
there=$("$1" ps --all --quiet --filter "name=$3") || exit 0
[ "$there" ] || exit 0
ours=$("$1" ps --all --quiet --filter "name=$3" --filter "label=$4") || exit 1
[ "$ours" ] || { echo "a container named $2 exists that is not ours; rename or remove it" >&2; exit 1; }
"$1" stop -t "$5" "$2"
"$1" rm --force "$2" 2>/dev/null
[ -z "$("$1" ps --all --quiet --filter "name=$3")" ]"""

_PLAIN = re.compile(r"^[A-Za-z0-9_@/=:.,+-]+$")
_ESCAPED = {code: "\\x%02x" % code for code in [*range(32), 127]}
_ESCAPED.update(str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}))


def systemd_value(text):
    """Quote one word of a systemd setting so that systemd reads exactly ``text``.

    :raises ValueError: for a NUL, which no unit can carry.
    """
    text = str(text)
    if "\0" in text:
        raise ValueError("a unit file cannot carry a NUL character")
    if _PLAIN.match(text):
        return text
    return '"%s"' % text.translate(_ESCAPED)


def systemd_quote(argument):
    """Quote one argument of an Exec line so that the program gets exactly ``argument``; there a dollar begins a variable too."""
    return systemd_value(str(argument).replace("$", "$$"))


def _description(text):
    """A setting that takes the rest of its line, where quotes would be shown."""
    return str(text).replace("%", "%%").replace("\n", " ")


def render(instance, engine, engine_path, state_directory=domain.STATE_DIRECTORY, template_dir=None):
    """Make the release of a plan instance.

    The id covers the unit and the environment, which decide what runs; the manifest only describes them.

    :param dict instance: one instance of the plan (its "release" is not read); "capabilities", "memory_limit" are optional.
    :param str engine: "docker" or "podman".
    :param str engine_path: the engine's absolute path on the host.
    :returns: {"id": 12 hexadecimal digits, "files": {unit name: text, "environment": text, "manifest.json": text}}.
    :raises ValueError, ReleaseError: for a value that a unit or an environment file cannot carry.
    """
    if not instance.get("image_reference"):
        raise ValueError("instance '%s' has no image reference yet" % instance["name"])
    for mount in instance["mounts"]:
        if "," in mount["source"] + mount["target"]:
            raise ValueError("instance '%s': the path of mount %s holds a comma, which the engines' --mount cannot carry" % (
                instance["name"], mount["source"]))
    environment = domain.environment_text(instance["environment"])
    unit = _unit(instance, engine, engine_path, state_directory, template_dir or TEMPLATE_DIRECTORY)
    # The unit names its own release, so the id is taken over the text with the name left out.
    digest = release_id(unit(release="-" * 12), environment, None)
    manifest = dict((key, instance.get(key)) for key in MANIFEST)
    manifest.update(schema=1, release=digest, engine=engine)
    if instance.get("group"):
        manifest["group"] = instance["group"]
    return {"id": digest, "files": {instance["unit"]: unit(release=digest), "environment": environment,
                                    "manifest.json": json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"}}


@functools.lru_cache(maxsize=None)
def _template(directory):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False)
    environment.filters.update(
        argument=systemd_quote, value=systemd_value, description=_description,
        command=lambda words: " ".join(systemd_quote(word) for word in words))
    return environment.get_template(TEMPLATE)


def _unit(instance, engine, engine_path, state_directory, template_dir):
    template = _template(template_dir)
    values = dict(
        (key, instance[key]) for key in (
            "name", "container", "served_model_name", "port", "shm_size", "mounts", "image_reference", "arguments", "stop_timeout_s"))
    values.update(
        engine=engine, engine_path=engine_path, state_directory=state_directory,
        devices=list(instance["devices"]) + [d for d in instance.get("common_devices", ()) if d not in instance["devices"]],
        capabilities=instance.get("capabilities") or CAPABILITIES, memory_limit=instance.get("memory_limit"),
        secret_file="%s/%s.secret" % (domain.SECRET_DIRECTORY, instance["name"]) if instance.get("secret") else None,
        instance_label=domain.INSTANCE_LABEL, release_label=domain.RELEASE_LABEL,
        clear_stale=["/bin/sh", "-c", CLEAR_STALE, "sh", engine_path, instance["container"], "^%s$" % re.escape(instance["container"]),
                     "%s=%s" % (domain.INSTANCE_LABEL, instance["name"]), str(instance["stop_timeout_s"])],
        with_library_path=domain.WITH_LIBRARY_PATH)

    def text(release):
        where = "%s/instances/%s/releases/%s/environment" % (state_directory, instance["name"], release)
        return template.render(values, release=release, environment_file=where)

    return text
