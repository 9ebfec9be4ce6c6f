# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import stat
import sys
import time

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli

DIGEST = "sha256:" + "a" * 64


def script(path, text):
    path.write_text("#!%s\n%s" % (sys.executable, text))
    path.chmod(0o755)
    return str(path)


def test_run_speaks_c_and_takes_input():
    done = container_cli.run([sys.executable, "-c", "import os, sys; print(os.environ['LC_ALL'], sys.stdin.read())"], 30, stdin="hello")
    assert (done["rc"], done["stdout"].strip(), done["timed_out"]) == (0, "C hello", False)


def test_deadline_kills_the_children_too(tmp_path):
    mark = tmp_path / "pid"
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); open(%r, 'w').write(str(p.pid)); time.sleep(60)" % str(mark)
    done = container_cli.run([sys.executable, "-c", child], 2)
    assert done["timed_out"] and done["rc"] is None
    pid = int(mark.read_text())
    for dummy in range(50):
        try:
            with open("/proc/%d/stat" % pid) as stream:
                if stream.read().rsplit(")", 1)[1].split()[0] == "Z":
                    break
        except FileNotFoundError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child outlived its deadline")


def test_command_that_is_missing():
    assert container_cli.run(["/nonexistent/x"], 5)["rc"] == 127


def test_silence_is_not_waited_out(tmp_path):
    quiet = engine(tmp_path, "import sys, time; print('Pulling fs layer', sys.stdout.isatty()); sys.stdout.flush(); time.sleep(60)")
    with pytest.raises(container_cli.CommandError) as caught:
        quiet.run(["pull", "x"], timeout_s=50, silence_s=1.5)
    assert str(caught.value) == "docker pull x failed: no progress for 2 s" and "Pulling fs layer True" in caught.value.result["stderr"]


def test_progress_keeps_a_slow_command_alive(tmp_path):
    slow = engine(tmp_path, "import sys, time\nfor n in range(8):\n    sys.stdout.write('\\x1b[2K%d\\r' % n); sys.stdout.flush(); time.sleep(0.3)")
    done = slow.run(["pull", "x"], timeout_s=50, silence_s=1.5)
    assert done["rc"] == 0 and "\x1b" not in done["stderr"] and done["stderr"].split()[-1] == "7"


CRAWL = """import sys, time
for n in range(1, 61):
    sys.stdout.write('\\x1b[1A\\x1b[2K\\r0123456789ab: %s  %dkB/900MB\\r\\x1b[1B' % (sys.argv[2], n)); sys.stdout.flush(); time.sleep(0.1)
"""


def test_layers_that_trickle_in_are_no_progress(tmp_path):
    with pytest.raises(container_cli.CommandError) as caught:
        engine(tmp_path, CRAWL).run(["pull", "Downloading [>    ]"], timeout_s=50, silence_s=1.5, least_bytes_per_s=1e6)
    assert str(caught.value).endswith("failed: no progress for 2 s")


@pytest.mark.parametrize("what, least", [("Downloading [>    ]", 100.0), ("Downloading [>    ]", 0.0), ("Extracting [>    ]", 1e6)])
def test_layers_that_come_in_or_are_unpacked_are(tmp_path, what, least):
    assert engine(tmp_path, CRAWL).run(["pull", what], timeout_s=50, silence_s=1.5, least_bytes_per_s=least)["rc"] == 0


def test_received_bytes():
    layers = {}
    assert container_cli.received_bytes("aaaaaaaaaaaa: Downloading [=> ]  1.5MB/20MB\rbbbbbbbbbbbb: Waiting\r", layers)
    assert container_cli.received_bytes("aaaaaaaaaaaa: Downloading [==> ]  2.5MB/20MB\rbbbbbbbbbbbb: Downloading  512B/2kB", layers)
    assert layers == {"aaaaaaaaaaaa": 2.5e6, "bbbbbbbbbbbb": 512.0}
    assert container_cli.received_bytes("bbbbbbbbbbbb: Retrying in 5 seconds", layers), "a retry is no progress"
    for moved in ("Verifying Checksum", "Download complete", "Extracting [=>]  1kB/2kB", "Pull complete", "Already exists"):
        assert not container_cli.received_bytes("bbbbbbbbbbbb: " + moved, layers)


def test_reason_of_a_watched_failure(tmp_path):
    with pytest.raises(container_cli.CommandError) as caught:
        engine(tmp_path, "import sys; print('Pulling'); sys.exit('Error: unexpected EOF')").run(["pull", "x"], silence_s=30)
    assert str(caught.value) == "docker pull x failed: Error: unexpected EOF"


def test_find_engine_prefers_docker_and_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    podman = script(tmp_path / "podman", "")
    assert container_cli.find_engine("podman") == ("podman", podman)
    docker = script(tmp_path / "docker", "")
    assert container_cli.find_engine() == ("docker", docker)
    assert container_cli.find_engine(None, podman) == ("podman", podman)
    with pytest.raises(container_cli.CommandError) as caught:
        container_cli.find_engine("docker", "/nonexistent/docker")
    assert "/nonexistent/docker was not found" in str(caught.value)


def engine(tmp_path, text, name="docker"):
    return container_cli.Engine(name, script(tmp_path / name, text))


def test_failure_tells_the_reason_of_the_engine(tmp_path):
    with pytest.raises(container_cli.CommandError) as caught:
        engine(tmp_path, "import sys; sys.stderr.write('noise\\nError: toomanyrequests\\n\\n'); sys.exit(1)").run(["pull", "x"])
    assert str(caught.value) == "docker pull x failed: Error: toomanyrequests"
    assert caught.value.result["rc"] == 1


@pytest.mark.parametrize("text", ["Error: No such image: x", "Error: x: image not known"])
def test_image_that_is_not_there(tmp_path, text):
    assert engine(tmp_path, "import sys; sys.stderr.write(%r); sys.exit(1)" % text).image("x") is None


def test_a_daemon_that_is_away_for_a_moment_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(container_cli, "AGAIN_S", 0.01)
    text = """import os, sys
if os.path.exists({0!r}):
    print("[]")
else:
    open({0!r}, "w").close()
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
"""
    assert engine(tmp_path, text.format(str(tmp_path / "asked"))).run(["ps"])["stdout"] == "[]\n"


def test_daemon_that_is_down_is_not_a_missing_image(tmp_path, monkeypatch):
    monkeypatch.setattr(container_cli, "RESTART_S", 0)
    with pytest.raises(container_cli.CommandError):
        engine(tmp_path, "import sys; sys.stderr.write('Cannot connect to the Docker daemon'); sys.exit(1)").image("x")


@pytest.mark.parametrize("identity", ["sha256:12", "12"])
def test_image_of_either_engine(tmp_path, identity):
    data = json.dumps([{"Id": identity, "RepoDigests": ["r/n@" + DIGEST], "RepoTags": None, "Architecture": "amd64", "Config": {"Labels": None}}])
    assert engine(tmp_path, "print(%r)" % data).image("x") == {
        "id": "sha256:12", "digests": ["r/n@" + DIGEST], "tags": [], "labels": {}, "architecture": "amd64"}


def test_image_with_digest_under_another_name(tmp_path):
    made = engine(tmp_path, "print('<none> %s\\nmirror/a %s\\nb <none>')" % (DIGEST, DIGEST))
    assert made.image_with_digest(DIGEST) == "mirror/a@" + DIGEST
    assert made.image_with_digest("sha256:" + "b" * 64) is None


def test_digest_that_docker_pushed(tmp_path):
    made = engine(tmp_path, "print('abc: Pushed\\nv1: digest: %s size: 528')" % DIGEST)
    assert made.push("r/n:v1", 30, str(tmp_path)) == DIGEST


def test_digest_that_podman_pushed(tmp_path):
    made = engine(tmp_path, "import sys\nopen(sys.argv[sys.argv.index('--digestfile') + 1], 'w').write('%s')" % DIGEST, "podman")
    assert made.push("r/n:v1", 30, str(tmp_path)) == DIGEST


def test_containers_of_a_reference(tmp_path):
    made = engine(tmp_path, "print('one\\tr/n:1\\ntwo\\tr/n:2\\nthree\\tr/n:1')")
    assert made.containers_of("r/n:1") == ["one", "three"]


def test_insecure_registries_of_docker(tmp_path):
    info = {"RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8", "10.1.0.0/16"], "IndexConfigs": {
        "docker.io": {"Secure": True}, "lab.example.net:5000": {"Secure": False}}}}
    insecure = engine(tmp_path, "print(%r)" % json.dumps(info)).insecure_registries()
    assert [insecure(host) for host in ("127.0.0.1:5000", "localhost:5000", "10.1.2.3", "lab.example.net:5000", "docker.io", "10.2.0.1:80", "quay.io")] == [
        True, True, True, True, False, False, False]


def test_insecure_registries_of_podman(tmp_path):
    info = {"registries": {"lab.example.net:5000": {"Insecure": True}, "search": ["quay.io"]}}
    insecure = engine(tmp_path, "print(%r)" % json.dumps(info), "podman").insecure_registries()
    assert insecure("lab.example.net:5000") and not insecure("quay.io")


def test_credentials_are_private_and_out_of_the_arguments(tmp_path):
    container_cli.write_credentials(str(tmp_path), "registry.example.net:5000", "fleet", "s3cret",
                                    {"credsStore": "desktop", "proxies": {"default": {}}, "auths": {"other": {"auth": "x"}}})
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert stat.S_IMODE(os.stat(str(path)).st_mode) == 0o600
    assert "credsStore" not in config and config["proxies"] == {"default": {}} and set(config["auths"]) == {"other", "registry.example.net:5000"}
    show = script(tmp_path / "docker", "import os, sys; print(sys.argv[1:], os.environ.get('DOCKER_CONFIG'), os.environ.get('REGISTRY_AUTH_FILE'))")
    made = container_cli.Engine("docker", show, str(tmp_path))
    with_them = made.run(["pull", "x"], credentials=True)["stdout"]
    assert "s3cret" not in with_them and str(tmp_path) in with_them
    assert "None None" in made.run(["images"])["stdout"]
