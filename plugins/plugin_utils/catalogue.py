# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the catalogue: YAML files of models, platforms, patch sets, images, the compatibility matrix and flag tables.

A later directory's file of the same name replaces an earlier one's, so a user's folder may add or override. Runs on the controller.
"""

from __future__ import annotations

import pathlib
import re

import yaml

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import arguments, bench_plan
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.naming import did_you_mean

BUILT_IN = pathlib.Path(__file__).absolute().parents[2] / "catalogue"

_MODEL_KEYS = {
    "name": str, "source": str, "suites": list, "platforms": list, "image": str, "patch_set": (str, type(None)), "devices": int,
    "served_model_name": str, "weights": dict, "default_max_model_len": int, "ready_timeout_s": int, "notes": list,
    "environment": dict, "arguments": dict, "expected_answer": str, "sanity": str,
    "group": int,
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


def load_benchmarks(directories=()):
    """Load suites and published figures, the built-in ones and then each directory's over them.

    :returns: {"suites": {name: suite}, "references": [reference], "table": flags of `vllm bench serve`, "engine_flags": of `vllm serve`}.
    :raises CatalogueError: for the first thing that cannot be used.
    """
    suites, references, table = {}, {}, {}
    for directory in [BUILT_IN] + [pathlib.Path(d).expanduser() for d in directories]:
        for path in sorted((directory / "engine_flags").glob("bench-serve-*.tsv")):
            table = arguments.parse_flag_table(path.read_text(encoding="utf-8"))
        for path in sorted((directory / "benchmarks").glob("*.yml")):
            suite = _read(path)
            for key in ("name", "title"):
                if not isinstance(suite.get(key), str):
                    raise CatalogueError(f"{path} lacks the key '{key}'")
            suites[suite["name"]] = dict(suite, _file=_shown(path))
        for path in sorted((directory / "references").glob("*.yml")):
            reference = _read(path)
            references[reference.get("name")] = dict(reference, _file=_shown(path))
    flags = _engine_flags()
    for suite in suites.values():
        problems = bench_plan.check_suite(suite, table, flags)
        if problems:
            raise CatalogueError(f"{suite['_file']}: {problems[0]}")
    for reference in references.values():
        _check_reference(reference, suites)
    return {"suites": suites, "references": list(references.values()), "table": table, "engine_flags": flags}


def _engine_flags():
    """The newest table of `vllm serve`."""
    return arguments.parse_flag_table(max((BUILT_IN / "engine_flags").glob("vllm-*.tsv")).read_text(encoding="utf-8"))


def _check_reference(reference, suites):
    where = reference["_file"]
    for key, kind in (("name", str), ("trust", str), ("tables", list), ("rows", list)):
        if not isinstance(reference.get(key), kind):
            raise CatalogueError(f"{where} lacks the key '{key}'")
    if reference["trust"] not in ("high", "low"):
        raise CatalogueError(f"{where}: trust is high or low, not '{reference['trust']}'")
    if reference.get("suite") is not None and reference["suite"] not in suites:
        raise CatalogueError(f"{where}: unknown suite '{reference['suite']}'{did_you_mean(reference['suite'], suites)}")
    tables = [table["name"] for table in reference["tables"]]
    for row in reference["rows"]:
        if row.get("table") not in tables:
            raise CatalogueError(f"{where}: a row names the table '{row.get('table')}', which is not among {', '.join(tables)}")
        for metric, text in row["metrics"].items():
            # As text, so that its digits stay as the source has them.
            if not isinstance(text, str) or not re.fullmatch(r"\d+(\.\d+)?", text):
                raise CatalogueError(f"{where}: {metric} of {row['model']} must be a number in quotes, not {text!r}")


# The one in C is ten times as quick; not every build of PyYAML has it.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read(path):
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER)
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
