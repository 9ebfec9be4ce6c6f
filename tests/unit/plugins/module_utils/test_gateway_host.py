# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway that does not take its new files has the old ones again."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, gateway_host


@pytest.mark.parametrize("second, words", [(0, "the old one is back"), (1, "needs a person")])
def test_what_the_gateway_does_not_take_leaves_every_file_as_it_was(tmp_path, monkeypatch, second, words):
    for name, text in (("haproxy.cfg", "old"), ("clients.map", "keys")):
        (tmp_path / name).write_text(text)
    reloads = iter([1, second])

    def run(argv, *_rest, **_more):
        rc = next(reloads) if argv[:2] == ["systemctl", "reload"] else 0
        return {"rc": rc, "stdout": "", "stderr": "no"}
    monkeypatch.setattr(container_cli, "run", run)
    monkeypatch.setattr(gateway_host.shutil, "which", lambda *_names, **_more: "/usr/sbin/haproxy")
    monkeypatch.setattr(gateway_host, "keep_states", lambda *_paths: None)
    with pytest.raises(ValueError, match=words):
        gateway_host.apply({"directory": str(tmp_path), "files": {"haproxy.cfg": "new", "certificate.pem": "new"}})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"haproxy.cfg": "old", "clients.map": "keys"}
