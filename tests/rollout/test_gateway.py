# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway keeps: certificates and keys change under load, secrets are seen by nobody, and nobody passes it by."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from fleet_operator import BIN, INVENTORY, ROOT, described, on, play, using
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils.load import Load

MODEL, GATEWAY, HOST = "gemma-4-E2B-it", "gw-1", "a2-1"
OLD, NEW = "key-of-web-before-PLANTED", "key-of-web-afterwards-PLANTED"


@pytest.fixture
def certificates(tmp_path):
    """Two certificates of the gateway with their keys, and a file with which both are trusted."""
    address, made = described()[0][GATEWAY], []
    for name in ("before", "after"):
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                        f"subjectAltName=IP:{address}", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        made.append(tmp_path / f"{name}.pem")
        made[-1].write_text(certificate.read_text() + key.read_text())
    trusted = tmp_path / "trusted.crt"
    trusted.write_text("".join((tmp_path / f"{name}.crt").read_text() for name in ("before", "after")))
    return made, trusted


def gateway(certificate, clients, *more):
    return play("playbooks/gateway.yml", "-e", json.dumps({"fleet_gateway": {"certificate": str(certificate)}, "fleet_gateway_clients": clients}), *more).succeeded()


def test_certificate_and_keys_change_under_load_and_nobody_sees_them(certificates):
    (before, after), trusted = certificates
    url = f"https://{described()[0][GATEWAY]}:9000"
    said = [gateway(before, {"web": OLD}).output]
    try:
        with Load(url, MODEL, rate=5, key=OLD, authority=trusted) as old:
            time.sleep(1)
            said.append(gateway(after, {"web": OLD, "web-2": NEW}, "-vvv", "--diff").output)
            with Load(url, MODEL, rate=5, key=NEW, authority=trusted) as new:
                time.sleep(3)
        for clients in (old, new):
            told = clients.report()
            assert told["failed"] == 0 and told["requests"] > 10, clients.told()
        served = subprocess.run(["openssl", "s_client", "-connect", url[len("https://"):]], input="", capture_output=True, text=True, check=False).stdout
        assert "CN = after" in served or "CN=after" in served
        said.append(gateway(after, {"web-2": NEW}).output)
        with Load(url, MODEL, rate=5, key=OLD, authority=trusted) as refused:
            time.sleep(1)
        assert all(text.startswith("status: 401") for text in refused.report()["texts"]) and refused.report()["failed"] > 0
        secret = after.read_text().split("PRIVATE KEY-----\n")[1].split("\n")[0]
        log = on(GATEWAY, "journalctl --no-pager --output cat; cat /proc/*/cmdline | tr '\\0' ' '")
        assert " web-2 " in log or "{web-2}" in log, "the gateway does not say who asked"
        for text in [*said, log, on(HOST, "journalctl --no-pager --output cat")]:
            assert OLD not in text and NEW not in text and secret not in text
        for path in ("/etc/vllm-ascend-fleet-gateway", "/tmp", "/var/lib/vllm-ascend-fleet"):
            assert on(GATEWAY, f"grep -rl -- '[P]LANTED' {path} 2>/dev/null; true").split() == []
        assert set(on(GATEWAY, "stat -c %a /etc/vllm-ascend-fleet-gateway/*").split()) == {"600"}
        kept = subprocess.run(["grep", "-rlE", "PLANTED|" + secret[:40].replace("+", "[+]"), ROOT / "reports"], capture_output=True, text=True, check=False)
        assert kept.stdout == ""
    finally:
        play("playbooks/gateway.yml").succeeded()


def test_nobody_passes_the_gateway_by():
    address = described()[0]
    stranger = f"curl -sS --max-time 10 http://{address[HOST]}:8000/metrics"
    assert "vllm:" in on(GATEWAY, stranger) and "vllm:" in on(HOST, stranger)
    assert "onnect" in on("a2-2", stranger + " 2>&1; true") and "vllm:" not in on("a2-2", stranger + "; true")
    on(HOST, "nft delete table inet vllm_ascend_fleet")
    assert "vllm:" in on("a2-2", stranger)
    listed = subprocess.run([BIN / "ansible-playbook", "playbooks/gateway.yml", *using(INVENTORY), "--check", "--diff"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout
    assert "changed=1" in listed
    play("playbooks/gateway.yml").succeeded()
    assert "vllm:" not in on("a2-2", stranger + "; true")
    assert set(play("playbooks/gateway.yml").succeeded().changed.values()) == {0}
