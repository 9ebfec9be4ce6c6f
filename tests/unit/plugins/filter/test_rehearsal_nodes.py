# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of an inventory become nodes."""

from __future__ import annotations

from ansible_collections.vllm_ascend.fleet.plugins.filter.rehearsal_nodes import rehearsal_nodes


def test_only_what_is_set_is_passed_on():
    hostvars = {"a2-1": {"ansible_host": "172.31.240.11", "rehearsal_fleet_platform": "a2", "rehearsal_fleet_chips": 4, "secret": "x"}}
    assert rehearsal_nodes(["a2-1"], hostvars) == [{"name": "a2-1", "address": "172.31.240.11", "platform": "a2", "chips": 4}]


def test_a_listed_node_replaces_the_host_of_its_name_and_others_follow():
    nodes = rehearsal_nodes(["a"], {"a": {"ansible_host": "1"}}, [{"name": "a", "address": "2"}, {"name": "b", "address": "3"}])
    assert nodes == [{"name": "a", "address": "2"}, {"name": "b", "address": "3"}]


def test_a_host_without_address_is_left_for_the_module_to_refuse():
    assert rehearsal_nodes(["a"], {"a": {}}) == [{"name": "a", "address": None}]
