# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the catalogue: YAML files of models, platforms, patch sets, images, the compatibility matrix and flag tables.

A later directory's file of the same name replaces an earlier one's, so a user's folder may add or override. Runs on the controller.
"""

from __future__ import annotations

import pathlib

import yaml

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

BUILT_IN = pathlib.Path(__file__).absolute().parents[2] / "catalogue"

_MODEL_KEYS = {
    "name": str, "source": str, "suites": list, "platforms": list, "image": str, "patch_set": (str, type(None)), "devices": int,
    "served_model_name": str, "weights": dict, "default_max_model_len": int, "ready_timeout_s": int, "notes": list,
    "environment": dict, "arguments": dict, "expected_answer": str, "sanity": str,
}
_PLATFORM_KEYS = {
    "name": str, "title": str, "source": str, "families": list, "npu_count": (int, type(None)), "chips_per_npu": int,
    "image_suffix": str, "shm_size": str, "common_devices": list, "mounts": list, "environment": dict, "arguments": dict,
}
_REQUIRED = {
    "models": ("name", "platforms", "image", "devices", "weights", "arguments"),
    "platforms": ("name", "families", "image_suffix", "common_devices", "mounts"),
    "patch_sets": ("name", "patches"),
}


class CatalogueError(Exception):
    """A catalogue file that cannot be used; the text names the file and the remedy."""


def load(directories=()):
    """Load the built-in catalogue, then each directory over it.

    :returns: {"models": {name: dict}, "platforms": …, "patch_sets": …, "images": dict, "registries": dict, "compatibility": dict,
        "flags": {vllm version: table}}; every entry of the first three carries "_file".
    :raises CatalogueError: when a file is missing, unreadable or has an unknown or missing key.
    """
    result = {"models": {}, "platforms": {}, "patch_sets": {}, "images": {}, "registries": {}, "compatibility": {}, "flags": {}}
    for directory in [BUILT_IN] + [pathlib.Path(d).expanduser() for d in directories]:
        if not directory.is_dir():
            raise CatalogueError(f"the catalogue directory {directory} does not exist; correct fleet_catalogue_directories")
        for kind, keys in (("models", _MODEL_KEYS), ("platforms", _PLATFORM_KEYS), ("patch_sets", None)):
            for path in sorted((directory / kind).glob("*.yml")):
                entry = _read(path)
                _check(kind, path, entry, keys)
                result[kind][entry["name"]] = dict(entry, _file=_shown(path))
        for path in [p for p in [directory / "images.yml"] if p.is_file()]:
            images = _read(path)
            result["images"].update(images.get("images") or {})
            result["registries"].update(images.get("registries") or {})
        for path in [p for p in [directory / "compatibility.yml"] if p.is_file()]:
            result["compatibility"].update(_read(path))
        for path in sorted((directory / "engine_flags").glob("vllm-*.tsv")):
            result["flags"][path.stem.split("-", 1)[1]] = arguments.parse_flag_table(path.read_text(encoding="utf-8"))
    _check_references(result)
    return result


def _read(path):
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CatalogueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise CatalogueError(f"{path} must hold a dictionary")
    return content


def _check(kind, path, entry, keys):
    for key in _REQUIRED[kind]:
        if key not in entry:
            raise CatalogueError(f"{path} lacks the key '{key}'")
    for key, value in entry.items():
        if keys is None:
            continue
        if key not in keys:
            raise CatalogueError(f"{path}: unknown key '{key}'{did_you_mean(key, keys)}")
        if not isinstance(value, keys[key]) or isinstance(value, bool):
            raise CatalogueError(f"{path}: key '{key}' has the wrong type {type(value).__name__}")


def _check_references(result):
    for model in result["models"].values():
        for platform in model["platforms"]:
            if platform not in result["platforms"]:
                raise CatalogueError(f"{model['_file']}: unknown platform '{platform}'{did_you_mean(platform, result['platforms'])}")
        if model["image"] not in result["images"]:
            raise CatalogueError(f"{model['_file']}: unknown image '{model['image']}'{did_you_mean(model['image'], result['images'])}")
        if model.get("patch_set") and model["patch_set"] not in result["patch_sets"]:
            raise CatalogueError(
                f"{model['_file']}: unknown patch set '{model['patch_set']}'{did_you_mean(model['patch_set'], result['patch_sets'])}")


def _shown(path):
    """The file as a person would name it: below the collection where it is built in, whole otherwise."""
    try:
        return str(path.absolute().relative_to(BUILT_IN.parent))
    except ValueError:
        return str(path)
