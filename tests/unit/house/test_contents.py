# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

"""Every module and role is listed, documented and tested."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from house import ROOT, load_yaml, modules, roles


def documentation(name):
    """The string constants that a module assigns at its top, by name."""
    tree = ast.parse((ROOT / "plugins" / "modules" / f"{name}.py").read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value.value
    return found


def test_there_is_something_to_look_at():
    assert modules() and roles()


def test_the_action_group_lists_every_module():
    assert load_yaml(ROOT / "meta" / "runtime.yml")["action_groups"]["fleet"] == modules()


@pytest.mark.parametrize("name", modules())
def test_a_module_has_unit_tests(name):
    used = re.compile(rf"vllm_ascend\.fleet\.plugins\.(modules|action)(\.| import .*\b){name}\b")
    tests = [path for kind in ("modules", "action") for path in (ROOT / "tests" / "unit" / "plugins" / kind).glob("test_*.py")]
    assert any(used.search(path.read_text(encoding="utf-8")) for path in tests)


@pytest.mark.parametrize("name", modules())
def test_a_module_is_documented_with_examples_that_are_tasks(name):
    texts = documentation(name)
    assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(texts)
    assert yaml.safe_load(texts["DOCUMENTATION"])["module"] == name
    tasks = yaml.safe_load(texts["EXAMPLES"])
    flat = [task for item in tasks for task in item.get("tasks", [item])]
    assert any(f"vllm_ascend.fleet.{name}" in task for task in flat), "no example uses the module by its full name"
    assert all(task.get("name") for task in flat)


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("plugins/action/*.py")))
def test_an_action_plugin_has_its_documentation_in_a_module(name):
    assert name in modules()


def defaults_and_specs(name):
    role = ROOT / "roles" / name
    path = role / "defaults" / "main.yml"
    defaults = (load_yaml(path) if path.exists() else None) or {}
    return defaults, load_yaml(role / "meta" / "argument_specs.yml")["argument_specs"]


@pytest.mark.parametrize("name", roles())
def test_defaults_and_argument_specs_agree(name):
    defaults, specs = defaults_and_specs(name)
    assert "main" in specs
    options = {}
    for entry in specs.values():
        options.update(entry.get("options", {}))
    required = {key for key, option in options.items() if option.get("required")}
    assert not required & set(defaults), "a required variable has a default"
    specified = {key: option["default"] for key, option in options.items() if "default" in option}
    # A default that is computed, or null for "as the plan says", cannot stand in the specs.
    computed = {key for key, value in defaults.items() if value is None or (isinstance(value, str) and "{{" in value)}
    plain = [{key: value for key, value in side.items() if key not in computed} for side in (defaults, specified)]
    assert plain[0] == plain[1]
    assert computed <= set(options)


@pytest.mark.parametrize("name", roles())
def test_an_entry_point_has_a_task_file_and_a_description(name):
    _defaults, specs = defaults_and_specs(name)
    for entry, spec in specs.items():
        assert (ROOT / "roles" / name / "tasks" / f"{entry}.yml").is_file()
        assert spec.get("short_description")
        for key, option in spec.get("options", {}).items():
            assert key.startswith(f"{name}_"), f"{key} does not start with the role's name"
            assert option.get("description") and option.get("type"), f"{key} has no description or no type"


@pytest.mark.parametrize("name", roles())
def test_a_role_has_a_molecule_scenario_with_verify(name):
    folder = ROOT / "molecule" / name
    assert (folder / "molecule.yml").is_file()
    (play,) = load_yaml(folder / "verify.yml")
    assert play["tasks"]


def test_a_molecule_step_names_a_playbook_that_exists():
    """Molecule only warns about a step without a playbook, so a mistyped file name would pass."""
    config = load_yaml(ROOT / ".config" / "molecule" / "config.yml")
    shared = config["ansible"]["playbooks"]
    for scenario in sorted(path.parent for path in ROOT.glob("molecule/*/molecule.yml")):
        own = load_yaml(scenario / "molecule.yml")
        names = {"converge": "converge.yml", "verify": "verify.yml", **shared, **own.get("ansible", {}).get("playbooks", {})}
        for step in own.get("scenario", config["scenario"])["test_sequence"]:
            step = {"check": "converge", "idempotence": "converge", "syntax": "converge"}.get(step, step)
            assert (scenario / names[step]).resolve().is_file(), f"{scenario.name}: no playbook for the step {step}"


@pytest.mark.parametrize("row", [line.split()[0] for line in (ROOT / "tests" / "cores.txt").read_text().splitlines() if line[:1].isdigit()])
def test_a_tested_core_is_locked(row):
    text = (ROOT / "tests" / "cores" / f"{row}.txt").read_text(encoding="utf-8")
    assert re.search(rf"^ansible-core=={re.escape(row)}\.\d+ ", text, re.MULTILINE)
