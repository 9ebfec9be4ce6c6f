# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is no weights: every cut, every stranger."""

from __future__ import annotations

import json
import struct

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import weight_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4999999999\n"


def shard(tensors, tail=b""):
    """Bytes of a safetensors file; ``tensors``: {name: bytes of data}."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\1" * at + tail


def judged(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    return weight_files.read_shard(str(path))


def test_a_whole_file(tmp_path):
    assert judged(tmp_path, shard({"b": 30, "a": 12})) == (42, ["a", "b"], None)


def test_a_file_without_tensors_is_whole(tmp_path):
    assert judged(tmp_path, shard({})) == (0, [], None)


def test_every_cut_is_seen(tmp_path):
    data = shard({"a": 40})
    for length in range(len(data)):
        assert judged(tmp_path, data[:length])[2], "cut to %d bytes" % length


@pytest.mark.parametrize("data, words", [
    (POINTER, "Git-LFS pointer"),
    (b"<!DOCTYPE html><html>" + b"x" * 5000, "HTML page"),
    (b"\n <html><head><title>404", "HTML page"),
    (b"", "0 bytes long"),
    (b"\xff" * 600, "not the length of a header"),
    (struct.pack("<Q", 4) + b"[1] ", "header cannot be read"),
    (struct.pack("<Q", 14) + b'{"a": {"b":1}}', "header cannot be read"),
    (shard({"a": 9}, b"tail"), "4 bytes longer"),
    (shard({"a": 9})[:-2], "cut off: "),
])
def test_what_is_no_weights(tmp_path, data, words):
    assert words in judged(tmp_path, data)[2]


@pytest.mark.parametrize("index, words", [
    ({"weight_map": {"a": "1", "b": "2"}, "metadata": {"total_size": 30}}, []),
    ({"weight_map": {"a": "1", "b": "2"}}, []),
    ({"weight_map": {"a": "1", "b": "3"}}, ["3: missing, the index names it"]),
    ({"weight_map": {"a": "1", "c": "2"}}, ["2: lacks 1 tensors that the index puts there, such as c"]),
    ({"weight_map": {"a": "1", "b": "2"}, "metadata": {"total_size": 31}}, ["the files hold 30 bytes of tensors, the index promises 31"]),
    ({}, ["no weight_map"]), ([], ["no weight_map"]),
])
def test_index(index, words):
    found = weight_files.judge_index(index, {"1": (10, ["a"], None), "2": (20, ["b"], None)})
    assert len(found) == len(words) and all(word in text for word, text in zip(words, found))


def test_a_damaged_shard_is_said_once():
    """The sum says nothing new then."""
    assert weight_files.judge_index({"weight_map": {"a": "1"}, "metadata": {"total_size": 10}}, {"1": (None, [], "cut off")}) == []
