# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import htpasswd as file

bcrypt = pytest.importorskip("bcrypt")


def test_a_hash_that_fits_is_kept_and_no_other():
    first = file.htpasswd("", "fleet", "one")
    name, _colon, known = first.strip().partition(":")
    assert name == "fleet" and known.startswith("$2") and bcrypt.checkpw(b"one", known.encode())
    assert file.htpasswd("someone:$2b$10$x\n" + first, "fleet", "one") == first
    other = file.htpasswd(first, "fleet", "two")
    assert other != first and other.count("\n") == 1
    assert file.htpasswd(first, "robot", "one").startswith("robot:")


@pytest.mark.parametrize("damaged", ["fleet:{SHA}abc", "fleet:", "fleet", "fleet:$2b$10$short"])
def test_what_is_no_hash_of_bcrypt_is_made_anew(damaged):
    assert bcrypt.checkpw(b"one", file.htpasswd(damaged, "fleet", "one").strip().partition(":")[2].encode())


@pytest.mark.parametrize("username, password, words", [
    ("a:b", "one", "colon"), ("", "one", "empty"), ("fleet", "", "0 bytes"), ("fleet", None, "0 bytes"), ("fleet", "é" * 37, "74 bytes")])
def test_what_cannot_be_used_is_told_without_the_password(username, password, words):
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        file.htpasswd("", username, password)
    assert "é" not in str(caught.value)


def test_a_controller_without_bcrypt_is_told_the_remedy(monkeypatch):
    monkeypatch.setattr(file, "bcrypt", None)
    with pytest.raises(AnsibleFilterError, match="pip install bcrypt"):
        file.htpasswd("", "fleet", "one")
