# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors

"""The layout that every ansible-core from 2.16 on was measured with."""

from __future__ import annotations

import os

import pytest
import yaml

from house import ROOT, load_yaml

LINKED = ["catalogue", "galaxy.yml", "meta", "playbooks", "plugins", "roles"]


@pytest.mark.parametrize("name", LINKED)
def test_the_collection_path_holds_links(name):
    """A tool that installs into the checkout replaces the links by a copy, which then goes stale unseen."""
    link = ROOT / "collections" / "ansible_collections" / "vllm_ascend" / "fleet" / name
    assert link.is_symlink(), f"{link} is a copy; put the link back: git checkout -- {link.relative_to(ROOT)}"
    assert os.readlink(link) == f"../../../../{name}"
    assert link.exists()


def test_the_collection_path_holds_nothing_else():
    folder = ROOT / "collections" / "ansible_collections" / "vllm_ascend" / "fleet"
    assert sorted(path.name for path in folder.iterdir()) == LINKED


def test_prod_links_to_the_inventory_directory():
    """A link to hosts.yml would lose group_vars."""
    assert os.readlink(ROOT / "prod") == "inventories/prod"
    assert (ROOT / "prod" / "hosts.yml").is_file()


@pytest.mark.parametrize("path", sorted(ROOT.glob("deploy_*.yml")), ids=lambda path: path.name)
def test_a_root_playbook_only_imports(path):
    (play,) = load_yaml(path)
    assert play["ansible.builtin.import_playbook"] == f"playbooks/{path.name}"


def test_a_mistyped_inventory_is_fatal():
    """Otherwise `-i typo` ends with "no hosts matched" and exit status 0."""
    text = (ROOT / "ansible.cfg").read_text(encoding="utf-8")
    assert "any_unparsed_is_failed = true" in text
    assert load_yaml(ROOT / "inventories" / "none.yml") == {"all": {"hosts": {}}}


def test_the_collection_depends_on_no_other():
    galaxy = load_yaml(ROOT / "galaxy.yml")
    assert galaxy["dependencies"] == {}
    assert load_yaml(ROOT / "meta" / "runtime.yml")["requires_ansible"] == ">=2.16.0"


def test_a_key_written_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yml"
    path.write_text("a: 1\na: 2\n", encoding="utf-8")
    with pytest.raises(yaml.YAMLError, match="'a' is written twice"):
        load_yaml(path)


def test_the_execution_environment_takes_the_collection_as_it_is_built():
    galaxy, wanted = load_yaml(ROOT / "galaxy.yml"), load_yaml(ROOT / "execution-environment.yml")
    built = "%(namespace)s-%(name)s-%(version)s.tar.gz" % galaxy
    assert [entry["name"] for entry in wanted["dependencies"]["galaxy"]["collections"]] == [built]
    assert [entry["src"] for entry in wanted["additional_build_files"]] == [built]
