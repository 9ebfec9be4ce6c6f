# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and certificates, made with the real tools."""

from __future__ import annotations

import stat
import subprocess

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import rehearsal, rehearsal_state

NODES = [("a2-1", ["172.31.240.11", "a2-1"])]


def test_what_is_missing_is_made_once_and_secrets_are_for_their_owner_only(tmp_path):
    state = str(tmp_path / "state")
    would = rehearsal_state.ensure(state, NODES, ["quay.io"], dry=True)
    assert not (tmp_path / "state").exists()
    assert set(would) <= set(rehearsal_state.ensure(state, NODES, ["quay.io"]))
    assert rehearsal_state.ensure(state, NODES, ["quay.io"]) == []
    for name in ("id_ed25519", "host_keys/a2-1", "ca.key", "registry.key", "fleet_registry_password", "fleet_api_key"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
    key = (tmp_path / "state" / "host_keys" / "a2-1.pub").read_text()
    assert (tmp_path / "state" / "known_hosts").read_text() == "172.31.240.11,a2-1 " + key


def test_another_registry_needs_another_certificate_that_its_authority_vouches_for(tmp_path):
    state = str(tmp_path)
    rehearsal_state.ensure(state, [], ["quay.io"])
    assert rehearsal_state.ensure(state, [], ["quay.io", "mirror.example"]) == ["make the certificate of the registries"]
    done = subprocess.run(["openssl", "verify", "-CAfile", state + "/ca.crt", "-verify_hostname", "mirror.example", state + "/registry.crt"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout


def test_a_tool_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "id_ed25519.pub").mkdir()
    with pytest.raises(rehearsal.RehearsalError, match="ssh-keygen failed with"):
        rehearsal_state.ensure(str(tmp_path), [], [])
