# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's folder filled from servers that cut, lie, change their mind and show error pages."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import stat
import struct
import subprocess
import threading

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import weight_files, weights

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def shard(name, size):
    text = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(bytearray(number % 251 for number in range(size)))


def model(folder, size=100000):
    folder.mkdir(parents=True)
    for number, name in enumerate(SHARDS):
        (folder / name).write_bytes(shard("t%d" % number, size))
    index = {"metadata": {"total_size": 2 * size}, "weight_map": {"t0": SHARDS[0], "t1": SHARDS[1]}}
    (folder / weight_files.INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "gemma4"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges and faults. ``server.faults``: {path: [fault, ...]}, one taken by each GET."""

    def log_message(self, *args):
        self.server.seen.append((self.command, self.path, self.headers.get("Range")))

    def do_GET(self):
        path = os.path.join(self.server.folder, self.path.lstrip("/"))
        if os.path.isdir(path) or not os.path.exists(path):
            return super().do_GET()
        with open(path, "rb") as stream:
            data = stream.read()
        tag, start, status = '"%s"' % self.server.tag, 0, 200
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == tag:
            start, status = int(wanted[len("bytes="):-1]), 206
        faults = self.server.faults.get(self.path) or [None]
        fault = faults.pop(0)
        if isinstance(fault, int):
            return self.send_error(fault)
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        self.wfile.write(body[:len(body) // 2] if fault == "cut" else body)
        if fault == "new":
            self.server.tag = "second"
        return None

    def translate_path(self, path):
        return os.path.join(self.server.folder, path.lstrip("/"))


@pytest.fixture
def server(tmp_path):
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.folder, made.faults, made.seen, made.tag = str(model(tmp_path / "www")), {}, [], "first"
    made.url = "http://127.0.0.1:%d" % made.server_port
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(weights.HttpSource.__init__, "__defaults__", (lambda seconds: None,))


def same(one, other):
    names = sorted(weights.listing(str(one)))
    assert names == sorted(weights.listing(str(other)))
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_from_a_server_once(server, tmp_path):
    target = tmp_path / "models" / "m"
    would = weights.ensure(str(target), "http", server.url, check_mode=True)
    assert would["changed"] and not target.exists()
    done = weights.ensure(str(target), "http", server.url)
    assert done["actions"] == would["actions"] and not os.path.exists(str(target / weights.LOCK)) and not (target / weights.INCOMING).exists()
    same(target, tmp_path / "www")
    del server.seen[:]
    assert weights.ensure(str(target), "http", server.url) == {"changed": False, "actions": [], "problems": []}
    assert server.seen == [], "a whole folder asks nothing of the network"


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.faults["/" + SHARDS[0]] = ["cut", 503, "cut", None]
    weights.ensure(str(tmp_path / "m"), "http", server.url)
    same(tmp_path / "m", tmp_path / "www")
    ranges = [wanted for command, path, wanted in server.seen if path == "/" + SHARDS[0] and wanted]
    assert ranges and all(wanted != "bytes=0-" for wanted in ranges)


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, tmp_path):
    server.faults["/" + SHARDS[0]] = ["cut", None]
    real = weights.HttpSource._open

    def changing(self, name, method="GET", headers=None):
        if headers:
            server.tag = "second"
        return real(self, name, method, headers)

    weights.HttpSource._open = changing
    try:
        weights.ensure(str(tmp_path / "m"), "http", server.url)
    finally:
        weights.HttpSource._open = real
    same(tmp_path / "m", tmp_path / "www")


def test_a_server_that_never_gets_further_is_given_up_and_what_arrived_stays(server, tmp_path):
    server.faults["/" + SHARDS[1]] = ["cut"] + [500] * 50
    with pytest.raises(weights.WeightsError, match="HTTP 500, 5 times without progress; what arrived is kept"):
        weights.ensure(str(tmp_path / "m"), "http", server.url)
    assert weights.listing(str(tmp_path / "m")) == {}, "nothing looks like a model"
    server.faults.clear()
    del server.seen[:]
    weights.ensure(str(tmp_path / "m"), "http", server.url)
    same(tmp_path / "m", tmp_path / "www")
    assert not [path for command, path, wanted in server.seen if command == "GET" and path == "/" + SHARDS[0]]


@pytest.mark.parametrize("content, words", [
    (b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer"), (b"<html>sign in", "HTML page"), (b"\1\0\0", "no safetensors"),
])
def test_what_is_no_weights_never_gets_into_place(server, tmp_path, content, words):
    good = open(os.path.join(server.folder, SHARDS[1]), "rb").read()
    with open(os.path.join(server.folder, SHARDS[1]), "wb") as stream:
        stream.write(content)
    with pytest.raises(weights.WeightsError, match="no whole model: %s: .*%s" % (SHARDS[1], words)):
        weights.ensure(str(tmp_path / "m"), "http", server.url)
    assert weights.listing(str(tmp_path / "m")) == {}
    with open(os.path.join(server.folder, SHARDS[1]), "wb") as stream:
        stream.write(good)
    weights.ensure(str(tmp_path / "m"), "http", server.url)
    same(tmp_path / "m", tmp_path / "www")


def test_only_what_is_broken_is_fetched_again(server, tmp_path):
    target = tmp_path / "m"
    weights.ensure(str(target), "http", server.url)
    (target / SHARDS[0]).write_bytes((target / SHARDS[0]).read_bytes()[:-7])
    del server.seen[:]
    assert weights.ensure(str(target), "http", server.url)["problems"] == ["%s: cut off: %d of %d bytes" % (
        SHARDS[0], os.path.getsize(os.path.join(server.folder, SHARDS[0])) - 7, os.path.getsize(os.path.join(server.folder, SHARDS[0])))]
    same(target, tmp_path / "www")
    assert set(path for command, path, dummy in server.seen if command == "GET" and "safetensors" in path and "index" not in path) == {"/" + SHARDS[0]}


def test_the_manifest_of_a_source_is_held(server, tmp_path):
    www = tmp_path / "www"
    weights.write_manifest(str(www), weights.hash_folder(str(www)))
    weights.ensure(str(tmp_path / "m"), "http", server.url)
    assert (tmp_path / "m" / weights.MANIFEST).read_text() == (www / weights.MANIFEST).read_text()
    (www / "tokenizer.json").write_text("[]")
    with pytest.raises(weights.WeightsError, match="tokenizer.json .* has not the sha256 that its manifest promises"):
        weights.ensure(str(tmp_path / "n"), "http", server.url)


@pytest.mark.parametrize("url, words", [("/none", "answers HTTP 404"), (":1", "cannot be reached")])
def test_a_server_without_it(server, tmp_path, url, words):
    where = server.url + url if url.startswith("/") else "http://127.0.0.1:1"
    with pytest.raises(weights.WeightsError, match=words):
        weights.ensure(str(tmp_path / "m"), "http", where)


def test_from_a_folder(tmp_path):
    source = model(tmp_path / "nfs")
    weights.ensure(str(tmp_path / "m"), "folder", str(source))
    same(tmp_path / "m", source)
    (source / SHARDS[0]).write_bytes(b"")
    with pytest.raises(weights.WeightsError, match="the source .* holds no whole model"):
        weights.ensure(str(tmp_path / "n"), "folder", str(source))


def test_a_full_disk_is_seen_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(weights.WeightsError, match="make room, nothing was downloaded"):
        weights.ensure(str(tmp_path / "m"), "http", server.url)
    assert not [path for command, path, dummy in server.seen if "safetensors" in path and command == "GET" and "index" not in path]


def test_looking_only(tmp_path):
    folder = model(tmp_path / "m")
    assert weights.ensure(str(folder))["changed"] is False
    (folder / SHARDS[0]).unlink()
    with pytest.raises(weights.WeightsError, match=SHARDS[0] + ": missing, the index names it; name a source"):
        weights.ensure(str(folder))


@pytest.mark.parametrize("edit, words", [
    (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    (lambda folder: (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1"), "tokenizer.json: a Git-LFS pointer"),
    (lambda folder: [path.unlink() for path in folder.glob("model*")], "no file of weights"),
])
def test_check(tmp_path, edit, words):
    folder = model(tmp_path / "m")
    edit(folder)
    assert [problem for problem in weights.check(str(folder)) if words in problem]


# --- the manifest ---------------------------------------------------------------------------------------------------


def manifest(folder, wanted="auto", again=False, check_mode=False):
    return weights.ensure_manifest(str(folder), wanted, again, check_mode, 1)["manifest"]


def test_the_manifest_is_written_once_and_sha256sum_reads_it(tmp_path):
    folder = model(tmp_path / "m")
    assert manifest(folder, check_mode=True) == "written" and not (folder / weights.MANIFEST).exists()
    assert [manifest(folder), manifest(folder), manifest(folder, again=True)] == ["written", "present", "present"]
    if shutil.which("sha256sum"):
        subprocess.check_call(["sha256sum", "--check", "--quiet", weights.MANIFEST], cwd=str(folder))
    (folder / SHARDS[0]).write_bytes(shard("t0", 99999) + b"x")
    with pytest.raises(weights.WeightsError, match=SHARDS[0] + ": its sha256 is not that of the manifest"):
        manifest(folder, again=True)
    (folder / SHARDS[0]).unlink()
    with pytest.raises(weights.WeightsError, match="missing, though its manifest names them: " + SHARDS[0]):
        manifest(folder)


def test_what_was_replaced_is_hashed_anew(server, tmp_path):
    """A newer revision from a server without a manifest must not be held to the old hashes."""
    folder = tmp_path / "m"
    weights.ensure(str(folder), "http", server.url)
    assert manifest(folder) == "written"
    old = weights.read_manifest(str(folder))
    (folder / SHARDS[0]).write_bytes(b"")
    data = (tmp_path / "www" / SHARDS[0]).read_bytes()
    (tmp_path / "www" / SHARDS[0]).write_bytes(data[:-1] + b"?")
    weights.ensure(str(folder), "http", server.url)
    assert manifest(folder) == "written"
    new = weights.read_manifest(str(folder))
    assert [name for name in new if new[name] != old[name]] == [SHARDS[0]] and manifest(folder, again=True) == "present"


def test_hashing_goes_on_after_a_kill(tmp_path, monkeypatch):
    folder, done = model(tmp_path / "m"), []
    real = weights.sha256_of

    def killed(path):
        done.append(os.path.basename(path))
        if len(done) == 3:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(weights, "sha256_of", killed)
    with pytest.raises(KeyboardInterrupt):
        manifest(folder)
    with open(str(folder / weights.PARTIAL), "a") as stream:
        stream.write('{"name": "cut')
    (folder / done[0]).write_text('{"edited": 1}')
    assert manifest(folder) == "written"
    assert done[3:].count(done[0]) == 1 and done[1] not in done[3:], "what changed is hashed again, the rest is not"
    assert weights.verify(str(folder), weights.read_manifest(str(folder))) == [] and not (folder / weights.PARTIAL).exists()


def test_holes_are_not_hashed(tmp_path):
    folder = model(tmp_path / "m")
    text = json.dumps({"t0": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1 << 30]}}).encode()
    with open(str(folder / SHARDS[0]), "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + (1 << 30))
    if os.stat(str(folder / SHARDS[0])).st_blocks > 1000:
        pytest.skip("this file system keeps no holes")
    assert manifest(folder) == "skipped"


@pytest.mark.parametrize("line", ["x", "a" * 64 + "  ../outside", "a" * 64 + "  /etc/passwd", "a" * 64 + "  .incoming/x"])
def test_a_manifest_stays_below_its_folder(line):
    with pytest.raises(weights.WeightsError):
        weights.parse_manifest(line + "\n")


def test_links_of_a_listing():
    page = '<a href="../">up</a> <a href="a%20b.json">x</a> <A class=x HREF=\'c.safetensors\'>y</A> <a href="?C=M">s</a> <a href="sub/">d</a>'
    assert weights.links(page) == ["a b.json", "c.safetensors"]


# --- one writer -----------------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(server, tmp_path):
    folder, results = tmp_path / "m", []
    threads = [threading.Thread(target=lambda: results.append(weights.ensure(str(folder), "http", server.url)["changed"])) for dummy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [False, False, False, True]
    assert len([path for command, path, dummy in server.seen if command == "GET" and path == "/" + SHARDS[0]]) == 1


def test_a_writer_that_stays_is_named(tmp_path):
    with weights.Writer(str(tmp_path), 0) as first:
        with pytest.raises(weights.WeightsError, match="is written by " + first.me):
            weights.Writer(str(tmp_path), 0).__enter__()
    assert os.listdir(str(tmp_path)) == []


def test_a_dead_writer_is_taken_over(tmp_path):
    (tmp_path / weights.LOCK).write_text("gone:1:x")
    os.utime(str(tmp_path / weights.LOCK), (1, 1))
    with weights.Writer(str(tmp_path), 5, sleep=lambda seconds: None) as mine:
        assert (tmp_path / weights.LOCK).read_text() == mine.me
    assert os.listdir(str(tmp_path)) == []


def test_a_living_writer_keeps_its_lock(tmp_path):
    """Its file is touched, so that another one with a short patience does not take it."""
    with weights.Writer(str(tmp_path), 0, beat_s=0.01):
        os.utime(str(tmp_path / weights.LOCK), (1, 1))
        for dummy in range(1000):
            if os.stat(str(tmp_path / weights.LOCK)).st_mtime > 1:
                break
            threading.Event().wait(0.01)
        with pytest.raises(weights.WeightsError):
            weights.Writer(str(tmp_path), 0).__enter__()


# --- hubs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Clients that copy a prepared model and note how they were called."""
    model(tmp_path / "hub")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("hf", "modelscope"):
        path = bin_folder / name
        path.write_text(
            "#!/bin/sh\nenv > '%s'\necho \"$@\" > '%s'\nfor last; do :; done\ncp -r '%s'/. \"$last\"\n"
            "[ ! -e '%s' ] || { echo 'Repository Not Found' >&2; exit 1; }\n" % (
                tmp_path / "env", tmp_path / "args", tmp_path / "hub", tmp_path / "fail"))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", "%s:%s" % (bin_folder, os.environ["PATH"]))
    return tmp_path


@pytest.mark.parametrize("kind, words, endpoint", [
    ("huggingface", "download google/gemma-4-E2B-it --local-dir", "HF_ENDPOINT=https://hub.example.net"),
    ("modelscope", "download google/gemma-4-E2B-it --local_dir", "MODELSCOPE_ENDPOINT=https://hub.example.net"),
])
def test_from_a_hub(client, kind, words, endpoint):
    done = weights.ensure(str(client / "m"), kind, "google/gemma-4-E2B-it", timeout_s=60, endpoint="https://hub.example.net", token="s3cret")
    assert done["changed"]
    same(client / "m", client / "hub")
    environment = (client / "env").read_text()
    assert words in (client / "args").read_text() and "s3cret" not in (client / "args").read_text()
    assert endpoint in environment and "s3cret" in environment


def test_a_hub_that_refuses_is_one_line(client):
    (client / "fail").write_text("")
    with pytest.raises(weights.WeightsError, match="hf could not download google/x: Repository Not Found; what arrived is kept"):
        weights.ensure(str(client / "m"), "huggingface", "google/x", timeout_s=60)


def test_a_missing_client_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(weights.WeightsError, match="hf is not on this host; install it .pip install huggingface_hub."):
        weights.ensure(str(tmp_path / "m"), "huggingface", "google/x", timeout_s=60)
