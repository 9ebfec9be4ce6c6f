# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A patch set against sources that fit, that already contain it, that contain a part of it, and that differ."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import container_cli, image_supply
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import patch_check

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TREE = "/src/one"
FILES = 60


def content(number, changed=False, end="\r\n"):
    lines = [f"file {number} line {line}" for line in range(30)]
    if changed:
        lines[4] = "changed"
        lines[20:20] = ["added 1", "added 2"]
    return "".join(line + end for line in lines).encode()


def end_of(number):
    return "\r\n" if number % 2 else "\n"


@pytest.fixture
def case(tmp_path):
    """Sources of 60 files, every other one with CRLF, and a patch over all of them that also makes one and deletes one."""
    for side in ("a", "b"):
        (tmp_path / side / "pkg").mkdir(parents=True)
        for number in range(FILES):
            (tmp_path / side / "pkg" / f"m{number}.py").write_bytes(content(number, side == "b", end_of(number)))
    (tmp_path / "a" / "old.py").write_bytes(b"old\r\n")
    (tmp_path / "b" / "new.py").write_bytes(b"new\n")
    made = subprocess.run(["git", "diff", "--no-index", "--no-prefix", "a", "b"], cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    (tmp_path / "1.patch").write_bytes(made.stdout)
    manifest = {"name": "set", "patches": [{"file": "1.patch", "tree": TREE, "sha256": hashlib.sha256(made.stdout).hexdigest()}]}
    sources = tmp_path / "sources"

    def run(side="a", edit=None, name="one"):
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(tmp_path / side, sources / name)
        if edit:
            edit(sources / name)
        before = patch_check.fingerprint(sources / name)
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        copies = patch_check.copy_given(str(sources), [TREE], work)
        rows = patch_check.check(manifest, str(tmp_path), copies, "git", str(work))
        assert patch_check.fingerprint(sources / name) == before, "the user's sources were written to"
        return rows, patch_check.problem("set", rows), "\n".join(patch_check.render(rows))

    run.sources, run.tmp_path, run.manifest = sources, tmp_path, manifest
    return run


def test_a_large_patch_with_mixed_line_ends_applies_and_comes_back(case):
    (row,), wrong, shown = case()
    assert (row["verdict"], row["round_trip"], row["ok"], row["proposal"], wrong) == ("applies", True, True, None, None)
    assert len(row["files"]) == FILES + 2 and row["tree"] == TREE and "bit for bit" in shown


def test_what_upstream_contains_is_proposed_for_removal(case):
    (row,), wrong, shown = case("b")
    assert (row["verdict"], row["round_trip"], wrong) == ("already_there", True, None)
    assert "upstream already contains it: take it out of the patch set" in shown


def test_a_part_of_it_is_no_patch(case):
    def edit(tree):
        for number in range(7):
            (tree / "pkg" / f"m{number}.py").write_bytes(content(number, True, end_of(number)))

    (row,), wrong, shown = case(edit=edit)
    assert (row["verdict"], row["round_trip"], row["ok"]) == ("partly_there", None, False)
    assert "partly there" in wrong and "\n" not in wrong
    assert "already there: pkg/m0.py, pkg/m1.py, pkg/m2.py and 4 more" in shown


def test_a_conflict_names_file_hunk_expected_and_found(case):
    def edit(tree):
        path = tree / "pkg" / "m3.py"
        path.write_bytes(path.read_bytes().replace(b"line 20", b"line twenty"))

    (row,), wrong, shown = case(edit=edit)
    assert row["verdict"] == "conflicts" and not row["ok"]
    assert "pkg/m3.py hunk 2 (line 21)" in wrong and "1 of 1 patches cannot be used" in wrong
    assert "expected  file 3 line 20\\r" in shown and "found     file 3 line twenty\\r" in shown


def test_converted_line_ends_are_called_so(case):
    def edit(tree):
        path = tree / "pkg" / "m1.py"
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))

    assert "only the line ends differ" in case(edit=edit)[1]


def test_a_way_back_that_differs_fails(case, monkeypatch):
    monkeypatch.setattr(patch_check, "round_trip", lambda *args: False)
    (row,), wrong, shown = case()
    assert (row["verdict"], row["ok"]) == ("applies", False)
    assert "forward and back does not give /src/one as it was" in wrong and "DIFFERS" in shown


def test_the_round_trip_sees_a_change_anywhere_in_the_tree(case, monkeypatch, tmp_path):
    """Also of a file that no patch names."""
    real = patch_check.patch_series.run_series

    def careless(patches, *args):
        done = real(patches, *args)
        with open(f"{patches[0]['tree']}/pkg/stranger", "a") as stream:
            stream.write("x")
        return done

    monkeypatch.setattr(patch_check.patch_series, "run_series", careless)
    assert case()[0][0]["round_trip"] is False


def test_sources_are_found_at_their_whole_path_first(case):
    case()
    (case.sources / "src" / "one").mkdir(parents=True)
    (case.sources / "src" / "one" / "here").write_text("x")
    work = case.tmp_path / "again"
    work.mkdir()
    assert list(patch_check.fingerprint(patch_check.copy_given(str(case.sources), [TREE], work)[TREE])) == ["here"]


def test_missing_sources_are_named_with_both_places(case, tmp_path):
    with pytest.raises(patch_check.CheckError, match=r"neither at .*/src/one nor at .*/one; unpack them there"):
        patch_check.copy_given(str(tmp_path / "nowhere"), [TREE], tmp_path)


def catalogue():
    return {"patch_sets": {"gemma4": {"name": "gemma4"}}, "platforms": {"310p": {"image_suffix": "-310p"}},
            "images": {"i": {"repository": "r.example.net/a/b", "tag": "v1", "digests": {"310p": "sha256:310"}}}}


def test_the_base_image_is_pinned_by_catalogue_then_lock():
    manifest = {"name": "gemma4", "base": "r.example.net/a/b:v1"}
    lock = {"images": {"r.example.net/a/b:v1": "sha256:locked"}}
    assert patch_check.base_image(catalogue(), lock, manifest) == ("r.example.net/a/b:v1", "sha256:locked")
    assert patch_check.base_image(catalogue(), lock, manifest, "310p") == ("r.example.net/a/b:v1-310p", "sha256:310")
    with pytest.raises(patch_check.CheckError, match="there is no platform '310'"):
        patch_check.base_image(catalogue(), lock, manifest, "310")


def test_a_misspelt_set_names_its_neighbour():
    with pytest.raises(patch_check.CheckError, match="'gemma5'.*gemma4"):
        patch_check.find_manifest(catalogue(), "gemma5")


def test_trees_come_out_of_the_image_by_digest_and_nothing_stays(monkeypatch, tmp_path):
    calls = []

    class Engine:
        def __init__(self, name, path):
            pass

        def run(self, args, timeout_s=60):
            calls.append(args)
            if args[0] == "cp":
                (tmp_path / "0").mkdir()
                if args[1].endswith("/lost"):
                    raise container_cli.CommandError("docker cp failed: no such path", {})

    def ensure(engine, options, check_mode, end):
        assert options["mirrors"] == ["m.example.net/r.example.net/a/b:v1"] and options["digest"] == "sha256:1"
        return {"digest": "sha256:1", "local_reference": "m.example.net/r.example.net/a/b@sha256:1"}

    monkeypatch.setattr(container_cli, "find_engine", lambda name, path: ("docker", "/usr/bin/docker"))
    monkeypatch.setattr(container_cli, "Engine", Engine)
    monkeypatch.setattr(image_supply, "ensure", ensure)
    image = {"reference": "r.example.net/a/b:v1", "digest": "sha256:1", "engine": None, "engine_path": None, "timeout_s": 9,
             "registries": {"r.example.net": {"mirrors": [{"kind": "prefix", "host": "m.example.net"}]}}}
    copies, had = patch_check.copy_from_image(image, [TREE], tmp_path)
    assert copies == {TREE: str(tmp_path / "0")} and had["digest"] == "sha256:1"
    assert [call[0] for call in calls] == ["create", "cp", "rm"] and calls[0][-1] == had["local_reference"] and calls[1][1].endswith(":" + TREE)
    shutil.rmtree(tmp_path / "0")
    with pytest.raises(patch_check.CheckError, match="cannot be taken out of r.example.net/a/b:v1: docker cp failed: no such path; or unpack"):
        patch_check.copy_from_image(image, ["/lost"], tmp_path)
    assert calls[-1][0] == "rm"


def test_rows_are_json(case):
    assert json.loads(json.dumps(case()[0])) == case()[0]
