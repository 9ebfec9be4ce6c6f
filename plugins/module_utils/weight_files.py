# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether files are weights: the safetensors header rule, and what pointers and error pages look like. Reads headers only."""

from __future__ import annotations

import json
import os
import struct

INDEX = "model.safetensors.index.json"
# The format's own bound for a header.
HEADER_LIMIT = 100000000
START = 512


def masquerade(start):
    """What a file that is no data is instead, by its first bytes, or None."""
    text = start.lstrip()[:64].lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git-LFS pointer, not the file itself"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML page, not the file itself"
    return None


def judge_header(size, start, header):
    """The rule of a safetensors file: its size is 8 + the header's length + the largest data_offsets end.

    :param int size: bytes of the file. :param bytes start: its first bytes. :param bytes header: the header as far as it is there.
    :returns: (bytes of tensor data or None, sorted tensor names, what is wrong or None).
    """
    wrong = masquerade(start)
    if wrong or len(start) < 8:
        return None, [], wrong or "%d bytes long, no safetensors file" % size
    length = struct.unpack("<Q", start[:8])[0]
    if length > HEADER_LIMIT:
        return None, [], "no safetensors file: its first 8 bytes are not the length of a header"
    if 8 + length > size or len(header) < length:
        return None, [], "cut off within its header: %d bytes, the header alone has %d" % (size, length)
    try:
        tensors = json.loads(header.decode("utf-8"))
        ends = dict((name, int(entry["data_offsets"][1])) for name, entry in tensors.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None, [], "no safetensors file: its header cannot be read"
    data = max(ends.values()) if ends else 0
    if size < 8 + length + data:
        return data, sorted(ends), "cut off: %d of %d bytes" % (size, 8 + length + data)
    if size > 8 + length + data:
        return data, sorted(ends), "%d bytes longer than its header says" % (size - 8 - length - data)
    return data, sorted(ends), None


def read_shard(path):
    """:func:`judge_header` of a file. Raises OSError."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(START)
        header = b""
        if len(start) >= 8 and not masquerade(start):
            length = struct.unpack("<Q", start[:8])[0]
            if length <= min(size, HEADER_LIMIT):
                stream.seek(8)
                header = stream.read(length)
    return judge_header(size, start, header)


def judge_index(index, shards):
    """Hold the index against the shards: every file is there, every tensor is in its file, the sum is what was promised.

    :param dict index: the parsed index. :param dict shards: {file: (data bytes or None, tensor names, problem or None)}.
    :returns: list of what is wrong.
    """
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        return ["%s: it has no weight_map" % INDEX]
    problems = ["%s: missing, the index names it" % name for name in sorted(set(weight_map.values()) - set(shards))]
    wanted = {}
    for tensor, name in weight_map.items():
        wanted.setdefault(name, set()).add(tensor)
    for name in sorted(name for name in wanted if name in shards and shards[name][2] is None):
        absent = sorted(wanted[name] - set(shards[name][1]))
        if absent:
            problems.append("%s: lacks %d tensors that the index puts there, such as %s" % (name, len(absent), absent[0]))
    total = (index.get("metadata") or {}).get("total_size")
    named = [shards[name] for name in set(weight_map.values()) if name in shards]
    if not problems and total and all(shard[2] is None for shard in named):
        found = sum(shard[0] for shard in named)
        if found != int(total):
            problems.append("the files hold %d bytes of tensors, the index promises %d" % (found, int(total)))
    return problems
