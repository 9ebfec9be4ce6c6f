# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of weights is served from host to host, to those that know its token, and nothing else is."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import weights, weights_host

OPTIONS = {"timeout_s": 9, "manifest": "auto"}


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(bytes(range(256)) * 9000)
    weights.write_manifest(str(folder), weights.hash_folder(str(folder)))
    made = weights_host.listen(str(folder), "secret", ("127.0.0.1", 0))
    yield folder, "http://127.0.0.1:%d/secret" % made.server_address[1]
    made.shutdown()
    made.server_close()


def test_a_folder_arrives_as_it_is(server, tmp_path):
    folder, where = server
    done = weights_host.answer({"act": "fetch", "path": str(tmp_path / "copy"), "kind": "http", "where": where, **OPTIONS})
    assert done["changed"] and {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir() if path.name[0] != "."} == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
    assert weights_host.answer({"act": "look", "path": str(tmp_path / "copy")}) == {"problems": []}


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    folder, where = server
    target = str(tmp_path / "part")
    whole = (folder / "model.bin").read_bytes()
    with open(target, "wb") as stream:
        stream.write(whole[:70001])
    state = (folder / "model.bin").stat()
    with open(target + ".etag", "w") as stream:
        stream.write('"%x-%x"' % (state.st_size, state.st_mtime_ns))
    asked = []

    class Source(weights.HttpSource):
        def _open(self, name, method="GET", headers=None):
            answer = super()._open(name, method, headers)
            asked.append((answer.status, int(answer.headers["Content-Length"])))
            return answer
    Source(where).fetch("model.bin", target)
    assert asked == [(206, len(whole) - 70001)] and (tmp_path / "part").read_bytes() == whole


@pytest.mark.parametrize("where", ["wrong", "secret/../secret/.weights.lock", "secret/../../etc/passwd", "secret//etc/passwd"])
def test_nothing_else_is_served(server, where):
    address = server[1].rpartition("/")[0]
    with pytest.raises(weights.WeightsError, match="HTTP 404"):
        weights.HttpSource("%s/%s" % (address, where)).fetch("", str(server[0].parent / "out"))


def test_what_is_wrong_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot be reached"):
        weights_host.answer({"act": "fetch", "path": str(tmp_path / "m"), "kind": "http", "where": "http://127.0.0.1:9/x", **OPTIONS})
