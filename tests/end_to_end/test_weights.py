# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights come to the fleet once, and from host to host."""

from __future__ import annotations

import functools
import http.server
import ipaddress
import json
import struct
import threading

import pytest
from fleet_operator import ADDRESSES, on, play

HOSTS, PATH = ("a2-1", "a3-1"), "/var/tmp/distributed/tiny"
SIZE = 4 << 20


@pytest.fixture
def afar(tmp_path):
    """A model on a server of the controller: (what was asked of it, its URL)."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    head = json.dumps({"t": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(range(256)) * (SIZE // 256))
    (folder / "config.json").write_text('{"model_type": "gemma4"}')
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            seen.append((self.client_address[0], self.command, self.path))

    # The fleet's network ends at this machine, in its first address.
    address = str(next(ipaddress.ip_network(ADDRESSES[HOSTS[0]] + "/24", strict=False).hosts()))
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield seen, "http://%s:%d/models" % server.server_address
    server.shutdown()
    for host in HOSTS:
        on(host, "rm -rf /var/tmp/distributed")


def test_one_download_is_enough(fleet, afar):
    seen, source = afar
    argv = ["playbooks/weights.yml", "--limit", ",".join(HOSTS), "-e", json.dumps({
        "fleet_instances": [{"model": "gemma-4-E2B-it", "weights": PATH}], "weights_source": source})]
    assert min(play(*argv, "--check").succeeded().changed[host] for host in HOSTS) == 1 and seen == []
    done = play(*argv).succeeded()
    assert [path for _who, command, path in seen if command == "GET" and path.endswith(".safetensors")] == ["/models/tiny/model.safetensors"]
    assert f"a2-1: {PATH} from {source}/tiny in " in done.output and f"a3-1: {PATH} from a2-1 in " in done.output
    sums = {host: on(host, f"cd {PATH} && sha256sum --check weights.sha256 && cat weights.sha256") for host in HOSTS}
    assert len(set(sums.values())) == 1 and "model.safetensors: OK" in sums["a2-1"]
    assert "weights-server" not in on("a2-1", "ls /var/lib/vllm-ascend-fleet/jobs 2>/dev/null; systemctl list-units --all 'vllm-ascend-job*'; true")
    again = play(*argv).succeeded()
    assert set(again.changed.values()) == {0}
