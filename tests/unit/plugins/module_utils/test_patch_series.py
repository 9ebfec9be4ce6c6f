# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patches on real trees: every way in which git apply says "fine" and does nothing, or does half."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import patch_series as ps

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *args):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return subprocess.check_output(["git", "-c", "user.email=a@example.net", "-c", "user.name=a", "-c", "core.autocrlf=false"] + list(args),
                                   cwd=str(folder), env=environment)


def numbered(count, end=b"\n", **changed):
    """Lines "line 1" ..., some of them replaced: numbered(9, l3=b"third")."""
    return b"".join(changed.get("l%d" % n, b"line %d" % n) + end for n in range(1, count + 1))


class Tree:
    """A repository, and patches made from edits of it."""

    def __init__(self, folder):
        self.path = str(folder)
        os.makedirs(self.path)
        git(self.path, "init", "-q", ".")

    def write(self, name, data, mode=0o644):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
        os.chmod(path, mode)

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as stream:
            return stream.read()

    def commit(self):
        git(self.path, "add", "-A", ".")
        git(self.path, "commit", "-q", "-m", "x")

    def take_patch(self, target, *options):
        """What was edited since the last commit becomes a patch; the commit moves on."""
        git(self.path, "add", "-A", ".")
        with open(str(target), "wb") as stream:
            stream.write(git(self.path, "diff", "--cached", *options))
        git(self.path, "commit", "-q", "-m", "x")
        return str(target)

    def back(self, commits):
        git(self.path, "reset", "-q", "--hard", "HEAD~%d" % commits)
        git(self.path, "clean", "-qfd")

    def state(self):
        """Everything in the tree: names, modes, bytes."""
        found = {}
        for folder, folders, files in os.walk(self.path):
            folders[:] = [each for each in folders if each != ".git"]
            for name in files + folders:
                path = os.path.join(folder, name)
                info = os.lstat(path)
                content = os.readlink(path) if stat.S_ISLNK(info.st_mode) else None
                if stat.S_ISREG(info.st_mode):
                    with open(path, "rb") as stream:
                        content = stream.read()
                found[os.path.relpath(path, self.path)] = (info.st_mode, content)
        return found


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path / "src")
    made.write("pkg/a.py", numbered(60))
    made.write("pkg/crlf.py", numbered(60, b"\r\n"))
    made.write("pkg/old.py", b"gone\n")
    made.write("tool.sh", b"#!/bin/sh\n", 0o755)
    made.commit()
    return made


@pytest.fixture
def patch(tree, tmp_path):
    """Two hunks in a file, two in one with CRLF ends, a new file in a new folder, a deleted one; the tree is back at its start."""
    tree.write("pkg/a.py", numbered(60, l6=b"SIX", l41=b"FORTY-ONE"))
    tree.write("pkg/crlf.py", numbered(60, b"\r\n", l6=b"SIX", l41=b"FORTY-ONE"))
    tree.write("new/dir/n.py", b"x = 1\r\n")
    os.unlink(os.path.join(tree.path, "pkg/old.py"))
    path = tree.take_patch(tmp_path / "0001-first.patch")
    tree.back(1)
    return path


def series(tree, *patches):
    return [{"file": each, "tree": tree.path} for each in patches]


def verdict(patches):
    found = ps.run_series(patches, act=False)["verdicts"]
    return [each["verdict"] for each in found]


def refused(patches, state="present"):
    with pytest.raises(ps.PatchError) as caught:
        ps.run_series(patches, state)
    assert "\n" not in str(caught.value)
    return caught.value


def test_forward_and_back_is_bit_for_bit(tree, patch):
    before = tree.state()
    done = ps.run_series(series(tree, patch))
    assert done["changed"] and done["actions"] == ["apply 0001-first.patch to %s" % tree.path]
    assert tree.read("pkg/crlf.py") == numbered(60, b"\r\n", l6=b"SIX", l41=b"FORTY-ONE")
    assert tree.read("new/dir/n.py") == b"x = 1\r\n"
    assert "pkg/old.py" not in tree.state()
    assert done["files"][tree.path]["new/dir/n.py"] == hashlib.sha256(b"x = 1\r\n").hexdigest()
    assert done["files"][tree.path]["pkg/old.py"] is None
    assert ps.run_series(series(tree, patch), "absent")["changed"]
    assert tree.state() == before
    assert git(tree.path, "status", "--short") == b""


def test_second_run_changes_nothing(tree, patch):
    ps.run_series(series(tree, patch))
    after = tree.state()
    again = ps.run_series(series(tree, patch))
    assert not again["changed"] and again["actions"] == [] and again["change"] == []
    assert again["verdicts"][0]["verdict"] == "already_there"
    assert tree.state() == after
    ps.run_series(series(tree, patch), "absent")
    assert not ps.run_series(series(tree, patch), "absent")["changed"]


def test_check_mode_writes_nothing_and_tells_the_same(tree, patch):
    before = tree.state()
    told = ps.run_series(series(tree, patch), act=False)
    assert tree.state() == before
    done = ps.run_series(series(tree, patch))
    assert (told["changed"], told["actions"], told["files"], told["change"]) == (done["changed"], done["actions"], done["files"], done["change"])


def test_same_result_as_git_itself(tree, patch, tmp_path):
    copy = str(tmp_path / "copy")
    shutil.copytree(tree.path, copy, symlinks=True)
    git(copy, "apply", patch)
    ps.run_series(series(tree, patch))
    assert subprocess.run(["diff", "-r", "--exclude=.git", copy, tree.path], check=False).returncode == 0


def test_subdirectory_is_refused(tree, patch):
    error = refused([{"file": patch, "tree": os.path.join(tree.path, "pkg")}])
    assert "not the top of a repository" in str(error) and "give %s" % os.path.realpath(tree.path) in str(error)


def test_folder_inside_another_repository_is_refused(tree, patch):
    inner = os.path.join(tree.path, "vendored")
    shutil.copytree(os.path.join(tree.path, "pkg"), os.path.join(inner, "pkg"))
    assert "lies inside of" in str(refused([{"file": patch, "tree": inner}]))


def test_plain_folder_outside_of_any_repository(tree, patch):
    shutil.rmtree(os.path.join(tree.path, ".git"))
    assert ps.run_series(series(tree, patch))["changed"]
    assert tree.read("pkg/a.py") == numbered(60, l6=b"SIX", l41=b"FORTY-ONE")


def test_worktree_whose_git_is_a_file(tree, patch, tmp_path):
    git(tree.path, "worktree", "add", "-q", str(tmp_path / "side"))
    assert ps.run_series([{"file": patch, "tree": str(tmp_path / "side")}])["changed"]


def test_tree_through_a_link(tree, patch, tmp_path):
    os.symlink(tree.path, str(tmp_path / "link"))
    done = ps.run_series([{"file": patch, "tree": str(tmp_path / "link")}])
    assert done["changed"] and done["verdicts"][0]["tree"] == os.path.realpath(tree.path)


def test_tree_that_is_missing(tree, patch, tmp_path):
    assert "is not a folder" in str(refused([{"file": patch, "tree": str(tmp_path / "nowhere")}]))


def test_configuration_and_attributes_of_the_tree_do_not_matter(tree, patch):
    git(tree.path, "config", "core.autocrlf", "true")
    git(tree.path, "config", "apply.whitespace", "fix")
    tree.write(".gitattributes", b"* text=auto eol=lf\n")
    ps.run_series(series(tree, patch))
    assert tree.read("pkg/crlf.py") == numbered(60, b"\r\n", l6=b"SIX", l41=b"FORTY-ONE")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to give the tree away")
def test_tree_of_another_owner(tree, patch):
    """git itself refuses such a repository as dubious; new files get the owner of their surroundings."""
    for folder, folders, files in os.walk(tree.path):
        for name in folders + files + ["."]:
            os.chown(os.path.join(folder, name), 12345, 12345)
    assert ps.run_series(series(tree, patch))["changed"]
    assert os.stat(os.path.join(tree.path, "pkg/a.py")).st_uid == 12345
    assert os.stat(os.path.join(tree.path, "new/dir/n.py")).st_uid == 12345
    assert os.stat(os.path.join(tree.path, "new/dir")).st_uid == 12345


def test_carriage_returns_stripped_from_the_patch(tree, patch):
    with open(patch, "rb") as stream:
        data = stream.read()
    with open(patch, "wb") as stream:
        stream.write(data.replace(b"\r\n", b"\n"))
    before = tree.state()
    error = refused(series(tree, patch))
    assert "pkg/crlf.py hunk 1" in str(error) and "only the line ends differ" in str(error)
    assert tree.state() == before


def test_patch_converted_to_crlf(tree, patch):
    with open(patch, "rb") as stream:
        data = stream.read()
    with open(patch, "wb") as stream:
        stream.write(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    before = tree.state()
    refused(series(tree, patch))
    assert tree.state() == before


def test_conflict_names_file_hunk_and_lines(tree, patch):
    tree.write("pkg/a.py", numbered(60, l40=b"somebody was here"))
    before = tree.state()
    error = refused(series(tree, patch))
    assert str(error) == ("0001-first.patch conflicts with %s: pkg/a.py hunk 2 (line 40): the text differs, expected 'line 40', "
                          "found 'somebody was here'; nothing was changed" % tree.path)
    entry = [each for each in error.verdicts[0]["files"] if each["path"] == "pkg/a.py"][0]
    assert (entry["state"], entry["hunk"], entry["expected"][0], entry["found"][0]) == ("conflicts", 2, "line 40", "somebody was here")
    others = {each["path"]: each["state"] for each in error.verdicts[0]["files"] if each["path"] != "pkg/a.py"}
    assert others == {"pkg/crlf.py": "applies", "new/dir/n.py": "applies", "pkg/old.py": "applies"}
    assert tree.state() == before


def test_partly_there_by_file(tree, patch):
    tree.write("pkg/crlf.py", numbered(60, b"\r\n", l6=b"SIX", l41=b"FORTY-ONE"))
    before = tree.state()
    for state in ("present", "absent"):
        error = refused(series(tree, patch), state)
        assert error.verdicts[0]["verdict"] == "partly_there"
        assert "already patched: pkg/crlf.py" in str(error) and "not yet: " in str(error)
    assert tree.state() == before


def test_many_names_are_cut_short():
    assert ps.some(["a", "b", "c"]) == "a, b, c"
    assert ps.some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_partly_there_by_hunk(tree, patch):
    tree.write("pkg/a.py", numbered(60, l6=b"SIX"))
    error = refused(series(tree, patch))
    assert error.verdicts[0]["verdict"] == "partly_there"
    assert "pkg/a.py: hunk 2 not applied, the others are" in str(error)


def test_new_file_that_another_one_occupies(tree, patch):
    tree.write("new/dir/n.py", b"y = 2\r\n")
    error = refused(series(tree, patch))
    assert "new/dir/n.py hunk 1 (line 1): the patch creates this file" in str(error)


def test_file_that_is_missing(tree, patch):
    os.unlink(os.path.join(tree.path, "pkg/a.py"))
    assert "pkg/a.py hunk 1 (line 0): there is no such file" in str(refused(series(tree, patch)))


def test_later_patch_builds_on_an_earlier_one(tree, tmp_path):
    tree.write("pkg/a.py", numbered(60, l6=b"SIX"))
    tree.write("pkg/n.py", b"one\n")
    first = tree.take_patch(tmp_path / "1.patch")
    tree.write("pkg/a.py", numbered(60, l6=b"SIX again"))
    tree.write("pkg/n.py", b"one\ntwo\n")
    second = tree.take_patch(tmp_path / "2.patch")
    tree.back(2)
    before = tree.state()
    both = series(tree, first, second)
    assert verdict(both) == ["applies", "applies"]
    assert ps.run_series(both[:1])["changed"]
    assert verdict(both) == ["already_there", "applies"]
    assert ps.run_series(both)["actions"] == ["apply 2.patch to " + tree.path]
    assert tree.read("pkg/n.py") == b"one\ntwo\n" and b"SIX again" in tree.read("pkg/a.py")
    assert verdict(both) == ["already_there", "already_there"]
    done = ps.run_series(both, "absent")
    assert done["actions"] == ["take 2.patch out of " + tree.path, "take 1.patch out of " + tree.path]
    assert tree.state() == before


def test_all_or_nothing_over_trees(tree, patch, tmp_path):
    other = Tree(tmp_path / "other")
    other.write("b.py", numbered(30))
    other.commit()
    other.write("b.py", numbered(30, l10=b"TEN"))
    second = other.take_patch(tmp_path / "0002-second.patch")
    other.back(1)
    other.write("b.py", numbered(30, l10=b"ten"))
    before = tree.state(), other.state()
    both = series(tree, patch) + series(other, second)
    assert "0002-second.patch conflicts" in str(refused(both))
    assert (tree.state(), other.state()) == before
    other.write("b.py", numbered(30))
    assert ps.run_series(both)["changed"]
    assert verdict(both) == ["already_there", "already_there"]


def test_failure_in_the_middle_of_writing_puts_everything_back(tree, patch, monkeypatch):
    before, real, calls = tree.state(), ps._put, []

    def failing(path, state):
        if path.startswith(tree.path):
            calls.append(path)
            if len(calls) == 3:
                raise OSError(28, "No space left on device", path)
        return real(path, state)

    monkeypatch.setattr(ps, "_put", failing)
    assert "No space left on device" in str(refused(series(tree, patch)))
    assert tree.state() == before


def test_wrong_checksum_names_both(tree, patch):
    error = refused([{"file": patch, "tree": tree.path, "sha256": "0" * 64}])
    assert "wanted " + "0" * 64 in str(error) and ps.sha256_of(patch) in str(error)


@pytest.mark.parametrize("content, words", [
    (b"", "holds no change"),
    (b"<html><body>404</body></html>\n", "holds no change"),
    (b"--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n-b\n", "ends too early"),
    (b"--- a/../../etc/passwd\n+++ b/../../etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "outside of a work tree"),
    (b"--- a/.git/config\n+++ b/.git/config\n@@ -1 +1 @@\n-a\n+b\n", "outside of a work tree"),
])
def test_what_is_no_usable_patch(tree, tmp_path, content, words):
    path = tmp_path / "x.patch"
    path.write_bytes(content)
    assert words in str(refused(series(tree, str(path))))


def test_missing_patch_file(tree):
    assert "/nowhere.patch cannot be read: No such file" in str(refused(series(tree, "/nowhere.patch")))


def test_missing_git(tree, patch):
    with pytest.raises(ps.PatchError) as caught:
        ps.run_series(series(tree, patch), git="/nonexistent/git")
    assert "install git" in str(caught.value)


def test_mode_rename_binary_and_odd_names(tree, tmp_path):
    before = tree.state()
    tree.write("tool.sh", b"#!/bin/sh\n", 0o644)
    tree.write("pkg/a.py", numbered(60), 0o755)
    os.rename(os.path.join(tree.path, "pkg/old.py"), os.path.join(tree.path, "pkg/renamed.py"))
    tree.write("with blank.txt", b"x")
    tree.write("\u00fcml\u00e4ut.txt", b"no end of line")
    tree.write("data.bin", bytes(bytearray(range(256))))
    os.symlink("pkg", os.path.join(tree.path, "link"))
    path = tree.take_patch(tmp_path / "odd.patch", "--binary", "-M")
    after = tree.state()
    tree.back(1)
    assert tree.state() == before
    assert ps.run_series(series(tree, path))["changed"]
    assert tree.state() == after
    assert not ps.run_series(series(tree, path))["changed"]
    ps.run_series(series(tree, path), "absent")
    assert tree.state() == before


def test_path_behind_a_link_is_refused(tree, patch, tmp_path):
    os.rename(os.path.join(tree.path, "pkg"), str(tmp_path / "elsewhere"))
    os.symlink(str(tmp_path / "elsewhere"), os.path.join(tree.path, "pkg"))
    assert "behind the symbolic link pkg" in str(refused(series(tree, patch)))


def test_look_alike_text_is_told_apart_by_its_place(tree, tmp_path):
    """The added block exists elsewhere already, so git takes the patch forward and back."""
    block = b"def f():\n    a\n    b\n    c\n\n\n"
    extended = b"def f():\n    a\n    NEW\n    b\n    c\n\n\n"
    tree.write("dup.py", numbered(20) + block + numbered(20) + extended + numbered(20))
    tree.commit()
    tree.write("dup.py", numbered(20) + extended + numbered(20) + extended + numbered(20))
    path = tree.take_patch(tmp_path / "dup.patch", "-U1")
    tree.back(1)
    assert verdict(series(tree, path)) == ["applies"]
    ps.run_series(series(tree, path))
    assert tree.read("dup.py").count(b"NEW") == 2
    assert verdict(series(tree, path)) == ["already_there"]


def test_mail_with_two_changes_of_one_file(tree, tmp_path):
    tree.write("pkg/a.py", numbered(60, l6=b"SIX"))
    tree.commit()
    tree.write("pkg/a.py", numbered(60, l6=b"SIX again"))
    tree.commit()
    mail = tmp_path / "mail.patch"
    mail.write_bytes(git(tree.path, "format-patch", "--stdout", "HEAD~2"))
    tree.back(2)
    assert ps.run_series(series(tree, str(mail)))["changed"]
    assert tree.read("pkg/a.py") == numbered(60, l6=b"SIX again")
    assert verdict(series(tree, str(mail))) == ["already_there"]


def test_nothing_is_left_in_the_tree_or_the_work_folder(tree, patch, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    ps.run_series(series(tree, patch), workdir=str(work))
    assert list(work.iterdir()) == []
    assert not [name for name in tree.state() if "vllm-ascend-fleet" in name]


@pytest.mark.parametrize("seed", range(6))
def test_random_edits_go_forward_and_back(tmp_path, seed):
    draw = random.Random(seed)
    tree = Tree(tmp_path / "src")
    contents = {}
    for number in range(12):
        end = draw.choice([b"\n", b"\r\n"])
        contents["d%d/f%d.py" % (number % 3, number)] = [b"%d" % draw.randrange(9) + end for dummy in range(draw.randrange(1, 80))]
    for name, lines in contents.items():
        tree.write(name, b"".join(lines))
    tree.commit()
    patches = []
    for step in range(3):
        for name in draw.sample(sorted(contents), 5):
            lines = contents[name]
            for dummy in range(3):
                at = draw.randrange(len(lines) + 1)
                lines[at:at + draw.randrange(2)] = [b"edit %d of %d\n" % (step, draw.randrange(9))]
            tree.write(name, b"".join(lines))
        patches.append(tree.take_patch(tmp_path / ("%d.patch" % step)))
    after = tree.state()
    tree.back(3)
    before = tree.state()
    ps.run_series(series(tree, *patches))
    assert tree.state() == after
    assert verdict(series(tree, *patches)) == ["already_there"] * 3
    ps.run_series(series(tree, *patches), "absent")
    assert tree.state() == before
