# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordered series of patches on work trees: verdicts, and application that is all or nothing.

Runs on hosts and, copied as a plain file, inside an image that is being built: standard library only, no import of ours.

``git apply`` does the patching, but never in the tree itself. The files that the series names are copied to a scratch
folder and git works there with ``GIT_DIR`` pointing at nothing, so that no repository above, no owner of the tree and no
configuration (autocrlf, whitespace fixing) can change what it does. The tree is written last, by replacing whole files,
and only after every patch of every tree has gone forward and back in the scratch.

The first part of the file is pure; :class:`Scratch` and what follows do I/O.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile

APPLIES, THERE, PARTLY, CONFLICTS = "applies", "already_there", "partly_there", "conflicts"
GIT_TIMEOUT_S = 120
SHOWN_LINES = 40

_HUNK = re.compile(br"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class PatchError(Exception):
    """The series cannot be judged or must not be applied; the text is one line for the user, ``verdicts`` what was found."""

    def __init__(self, message, verdicts=()):
        super().__init__(message)
        self.verdicts = list(verdicts)


# --- pure: the patch text -------------------------------------------------------------------------------------------


def _unquote(raw):
    """A path as git prints it: bare, or quoted like a C string. ``raw`` is bytes; returns str or None for /dev/null."""
    raw = raw.rstrip(b"\r\n").split(b"\t")[0] if not raw.startswith(b'"') else raw.strip()
    if raw.startswith(b'"'):
        body = raw[1:raw.rindex(b'"')]
        raw = re.sub(br"\\([0-7]{3}|.)", _unescape, body)
    return None if raw == b"/dev/null" else os.fsdecode(raw)


def _unescape(match):
    token = match.group(1)
    if len(token) == 3:
        return bytes([int(token, 8) & 255])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}.get(token, token)


def _strip_level(path):
    """Take the a/ or b/ away, as ``git apply -p1`` does."""
    if path is None:
        return None
    return path.split("/", 1)[1] if "/" in path else path


def _diff_git_names(rest):
    """Both names of a ``diff --git`` line, for entries without ---/+++ lines (modes, empty or binary files)."""
    quoted = re.match(br'^("(?:\\.|[^"\\])*"|\S+) ("(?:\\.|[^"\\])*"|\S+)\s*$', rest)
    if quoted and b" b/" not in quoted.group(1):
        return _strip_level(_unquote(quoted.group(1))), _strip_level(_unquote(quoted.group(2)))
    # Names with blanks are not quoted; both sides are the same name then.
    text = rest.rstrip(b"\r\n")
    half = (len(text) - 1) // 2
    return _strip_level(_unquote(text[:half])), _strip_level(_unquote(text[half + 1:]))


def split_lines(data):
    """Lines of bytes with their ends; only a line feed ends a line."""
    return re.findall(br"[^\n]*\n|[^\n]+\Z", data)


def parse_patch(data):
    """Split a patch (bytes) into its file entries, in order.

    Each entry: ``{old, new, hunks, text, start, mode}``: ``old`` is None for a new file, ``new`` is None for a deleted one;
    ``hunks`` are ``{number, old_start, new_start, before: [bytes], after: [bytes]}`` (lines with their ends), ``text`` the
    entry's own bytes, ``start`` the offset of its first byte. Raises PatchError when a hunk ends too early.
    """
    lines = split_lines(data)
    entries, current, offset, index = [], None, 0, 0
    while index < len(lines):
        line = lines[index]
        follows = index + 1 < len(lines) and lines[index + 1].startswith(b"+++ ")
        if line.startswith(b"diff --git "):
            old, new = _diff_git_names(line[len(b"diff --git "):])
            current = {"old": old, "new": new, "hunks": [], "start": offset, "git": True, "binary": False}
            entries.append(current)
        elif line.startswith(b"--- ") and follows:
            if current is None or not current["git"] or current["hunks"]:
                current = {"hunks": [], "start": offset, "git": False, "binary": False}
                entries.append(current)
            current["old"] = _strip_level(_unquote(line[4:]))
            current["new"] = _strip_level(_unquote(lines[index + 1][4:]))
            offset += len(line)
            index += 1
            line = lines[index]
        elif current is not None and line.startswith(b"new file mode"):
            current["old"] = None
        elif current is not None and line.startswith(b"deleted file mode"):
            current["new"] = None
        elif current is not None and (line.startswith(b"rename from ") or line.startswith(b"copy from ")):
            current["old"] = _unquote(line.split(b" from ", 1)[1])
        elif current is not None and (line.startswith(b"rename to ") or line.startswith(b"copy to ")):
            current["new"] = _unquote(line.split(b" to ", 1)[1])
        elif current is not None and (line.startswith(b"GIT binary patch") or line.startswith(b"Binary files ")):
            current["binary"] = True
        else:
            match = _HUNK.match(line) if current is not None else None
            if match:
                hunk, used = _read_hunk(match, lines, index + 1, len(current["hunks"]) + 1)
                current["hunks"].append(hunk)
                offset += sum(len(each) for each in lines[index:index + 1 + used])
                index += 1 + used
                continue
        offset += len(line)
        index += 1
    for position, entry in enumerate(entries):
        end = entries[position + 1]["start"] if position + 1 < len(entries) else len(data)
        entry["text"] = data[entry["start"]:end]
    return entries


def _read_hunk(match, lines, index, number):
    old_left = int(match.group(2) or b"1")
    new_left = int(match.group(4) or b"1")
    hunk = {"number": number, "old_start": int(match.group(1)), "new_start": int(match.group(3)), "before": [], "after": []}
    first = index
    while index < len(lines) and (old_left > 0 or new_left > 0 or lines[index].startswith(b"\\")):
        sign, body = lines[index][:1], lines[index][1:]
        if sign == b"\\":
            # "No newline at end of file" speaks of the line above it.
            above = lines[index - 1][:1]
            for name, signs in (("before", b" -"), ("after", b" +")):
                if above in (signs[:1], signs[1:]) and hunk[name]:
                    hunk[name][-1] = hunk[name][-1].rstrip(b"\n")
        elif sign in (b" ", b"\n", b"\r"):
            body = lines[index] if sign != b" " else body
            hunk["before"].append(body)
            hunk["after"].append(body)
            old_left, new_left = old_left - 1, new_left - 1
        elif sign == b"-":
            hunk["before"].append(body)
            old_left -= 1
        elif sign == b"+":
            hunk["after"].append(body)
            new_left -= 1
        else:
            break
        index += 1
    if old_left > 0 or new_left > 0:
        raise PatchError("hunk %d ends too early: %d old and %d new lines are missing; the patch is cut off or was edited"
                         % (number, max(old_left, 0), max(new_left, 0)))
    return hunk, index - first


# --- pure: where a hunk stands in a file ---------------------------------------------------------------------------


def find_block(lines, block, near):
    """Index in ``lines`` where ``block`` stands, the nearest to ``near``, or None. Lists of bytes."""
    if not block:
        return max(0, min(near, len(lines)))
    found = [at for at in range(len(lines) - len(block) + 1) if lines[at] == block[0] and lines[at:at + len(block)] == block]
    return min(found, key=lambda at: abs(at - near)) if found else None


def nearest_miss(lines, block, near):
    """Where ``block`` fits best and the first line that differs: ``(line number from 1, expected, found)``; bytes or None."""
    best, best_score = max(0, min(near, len(lines))), -1
    for at in range(max(1, len(lines) - len(block) + 1)):
        score = sum(1 for have, want in zip(lines[at:at + len(block)], block) if have == want)
        if score > best_score or (score == best_score and abs(at - near) < abs(best - near)):
            best, best_score = at, score
    if best_score <= 0:
        best = max(0, min(near, len(lines)))
    for step, want in enumerate(block):
        have = lines[best + step] if best + step < len(lines) else None
        if have != want:
            return best + step + 1, want, have
    return best + 1, block[0] if block else None, lines[best] if best < len(lines) else None


def show(line):
    """A line of bytes for a person: text, with a carriage return made visible."""
    if line is None:
        return "<end of file>"
    return line.rstrip(b"\n").decode("utf-8", "backslashreplace").replace("\r", "\\r")


def file_state(entry, old_content, new_content):
    """State of one file entry, judged by content alone.

    ``old_content`` and ``new_content`` are the bytes found under the entry's two names, None when there is no file.
    Returns ``{path, state, ...}``; for a conflict also ``hunk, line, expected, found, reason`` (lists of text lines).
    """
    path = entry["new"] or entry["old"]
    result = {"path": path}
    content = new_content if new_content is not None else old_content
    if entry["binary"]:
        return dict(result, state=CONFLICTS, reason="a binary change that fits neither forward nor back")
    if entry["old"] is None:
        wanted = b"".join(line for hunk in entry["hunks"] for line in hunk["after"])
        if new_content is None:
            return dict(result, state=APPLIES)
        if new_content == wanted:
            return dict(result, state=THERE)
        miss = _difference(1, split_lines(wanted), split_lines(new_content), 0)
        return dict(result, state=CONFLICTS, **dict(miss, reason="the patch creates this file, but another one is there"))
    if entry["new"] is None and old_content is None:
        return dict(result, state=THERE)
    if content is None:
        return dict(result, state=CONFLICTS, reason="there is no such file", hunk=1, line=0, expected=[], found=[])
    lines = split_lines(content)
    states, shift = [], 0
    for hunk in entry["hunks"]:
        near = hunk["old_start"] - 1 + shift
        before, after = find_block(lines, hunk["before"], near), find_block(lines, hunk["after"], near)
        if before is not None and (after is None or abs(before - near) <= abs(after - near)):
            states.append(APPLIES)
        elif after is not None:
            states.append(THERE)
            shift += len(hunk["after"]) - len(hunk["before"])
        else:
            return dict(result, state=CONFLICTS, **_difference(hunk["number"], hunk["before"], lines, near))
    if THERE not in states:
        return dict(result, state=APPLIES)
    if APPLIES in states:
        missing = [str(hunk["number"]) for hunk, state in zip(entry["hunks"], states) if state == APPLIES]
        return dict(result, state=PARTLY, reason="hunk %s not applied, the others are" % ", ".join(missing))
    return dict(result, state=THERE)


def _difference(number, expected, lines, near):
    at, want, have = nearest_miss(lines, expected, near)
    reason = "the text differs"
    if want is not None and have is not None and want.rstrip(b"\r\n") == have.rstrip(b"\r\n"):
        reason = "only the line ends differ: something converted the patch or the tree, take the original bytes"
    first = max(0, at - 1)
    skip = expected.index(want) if want in expected else 0
    return {"hunk": number, "line": at, "reason": reason, "expected": [show(line) for line in expected[skip:skip + SHOWN_LINES]],
            "found": [show(line) for line in lines[first:first + min(SHOWN_LINES, max(1, len(expected) - skip))]] or [show(None)]}


def summarise(states):
    """Verdict of a patch that git takes neither forward nor back, from its files' states."""
    kinds = set(states)
    if CONFLICTS in kinds or kinds in ({APPLIES}, {THERE}):
        return CONFLICTS
    return PARTLY


def shift_of(entries, contents, side):
    """How far the hunks of one side (``before`` or ``after``) stand from the lines the patch names; tells look-alikes apart."""
    total = 0
    for entry in entries:
        content = contents.get(entry["new"] or entry["old"])
        lines = split_lines(content or b"")
        for hunk in entry["hunks"]:
            near = hunk["old_start" if side == "before" else "new_start"] - 1
            at = find_block(lines, hunk[side], near)
            total += abs(at - near) if at is not None else 10 ** 6
    return total


def some(names):
    """The first few of many names, and how many more there are."""
    return ", ".join(names[:3]) + (" and %d more" % (len(names) - 3) if len(names) > 3 else "")


def describe(verdict):
    """One line for the user about a patch that cannot be applied."""
    parts = []
    for entry in verdict["files"]:
        if entry["state"] in (CONFLICTS, PARTLY):
            text = entry["path"]
            if entry.get("hunk"):
                text += " hunk %d (line %d)" % (entry["hunk"], entry["line"])
            text += ": " + entry.get("reason", "")
            if entry.get("expected"):
                text += ", expected '%s', found '%s'" % (entry["expected"][0], (entry["found"] or [show(None)])[0])
            parts.append(text)
    more = " (and %d more files)" % (len(parts) - 1) if len(parts) > 1 else ""
    if verdict["verdict"] == PARTLY:
        done = [entry["path"] for entry in verdict["files"] if entry["state"] == THERE]
        todo = [entry["path"] for entry in verdict["files"] if entry["state"] == APPLIES]
        what = "; ".join(([parts[0] + more] if parts else []) + (["already patched: " + some(done)] if done else [])
                         + (["not yet: " + some(todo)] if todo else []))
        return ("%s is partly there in %s: %s; nothing was changed, restore these files (git checkout -- FILE) and run again"
                % (verdict["patch"], verdict["tree"], what))
    return "%s conflicts with %s: %s%s; nothing was changed" % (verdict["patch"], verdict["tree"], parts[0] if parts else verdict.get("reason", ""), more)


# --- I/O: trees, scratch folders, git -------------------------------------------------------------------------------


def sha256_of(path):
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check_tree(tree):
    """Real path of a work tree. PatchError unless it is a folder that no repository above it claims.

    git skips what lies outside of "its" folder and returns 0, so a tree is either the top of its repository or in none.
    """
    if not os.path.isdir(tree):
        raise PatchError("tree %s is not a folder; give the top folder of the sources to patch" % tree)
    real = os.path.realpath(tree)
    folder = real
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            if folder == real:
                return real
            raise PatchError("tree %s is not the top of a repository but lies inside of %s, where git would silently skip files; "
                             "give %s, or move the copy out of that repository" % (tree, folder, folder))
        parent = os.path.dirname(folder)
        if parent == folder:
            return real
        folder = parent


def load_patch(path, sha256=None):
    """Read a patch: ``{file, name, data, sha256, entries}``; PatchError when missing, altered or empty."""
    name = os.path.basename(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise PatchError("patch %s cannot be read: %s" % (path, error.strerror))
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256.lower():
        raise PatchError("patch %s has sha256 %s, wanted %s: it is another file or was altered on the way (line ends?), copy it as binary"
                         % (path, found, sha256.lower()))
    try:
        entries = parse_patch(data)
    except PatchError as error:
        raise PatchError("patch %s: %s" % (path, error))
    if not entries:
        raise PatchError("patch %s holds no change to any file; is it really a patch?" % path)
    for entry in entries:
        for each in (entry["old"], entry["new"]):
            parts = (each or "x").split("/")
            if each is not None and (each.startswith("/") or ".." in parts or ".git" in parts):
                raise PatchError("patch %s names %s, which is outside of a work tree" % (path, each))
    return {"file": path, "name": name, "data": data, "sha256": found, "entries": entries}


def _names(patches):
    names = set()
    for patch in patches:
        for entry in patch["entries"]:
            names.update(each for each in (entry["old"], entry["new"]) if each)
    return sorted(names)


class Scratch:
    """A folder with copies of the files that a series names, in which git may work."""

    def __init__(self, folder, git):
        self.folder = folder
        self.git = git

    def fill(self, tree, names):
        """Copy what is in the tree under these names."""
        for name in names:
            source, target = os.path.join(tree, name), os.path.join(self.folder, name)
            above = os.path.dirname(name)
            while above:
                if os.path.islink(os.path.join(tree, above)):
                    raise PatchError("%s in %s lies behind the symbolic link %s, which git refuses to follow" % (name, tree, above))
                above = os.path.dirname(above)
            if not os.path.lexists(source):
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isdir(source) and not os.path.islink(source):
                os.makedirs(target, exist_ok=True)
            else:
                shutil.copy2(source, target, follow_symlinks=False)

    def read(self, name):
        """Bytes of a file, of a link its target, None when there is none."""
        return _read(os.path.join(self.folder, name)) if name else None

    def snapshot(self, names):
        """``{name: (kind, bytes)}`` of everything that is there."""
        return {name: _state(os.path.join(self.folder, name)) for name in names}

    def apply(self, data, reverse=False, check=False):
        """Run git apply; returns ``(ok, message)``. GIT_DIR points at nothing: git then patches the folder it stands in."""
        command = [self.git, "-c", "apply.whitespace=nowarn", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn"]
        command += (["--check"] if check else []) + (["-R"] if reverse else []) + ["-"]
        env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        env.update(LC_ALL="C", LANGUAGE="", GIT_DIR=os.path.join(self.folder, ".no-repository"), GIT_CONFIG_NOSYSTEM="1",
                   HOME="/nonexistent", XDG_CONFIG_HOME="/nonexistent", GIT_ATTR_NOSYSTEM="1")
        try:
            # Runs inside images too, where there is no module whose run_command could be used.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder, env=env, timeout=GIT_TIMEOUT_S, check=False)
        except OSError as error:
            raise PatchError("git cannot be run (%s): install git or give its path" % error)
        except subprocess.TimeoutExpired:
            raise PatchError("git apply did not end within %d s" % GIT_TIMEOUT_S)
        return done.returncode == 0, done.stderr.decode("utf-8", "backslashreplace").strip()

    def round_trip(self, patch, reverse):
        """Whether the patch goes in this direction and comes back to the very same bytes. Leaves the scratch as it was."""
        names = _names([patch])
        before = self.snapshot(names)
        if not self.apply(patch["data"], reverse, check=True)[0]:
            return False
        if not self.apply(patch["data"], reverse)[0]:
            return False
        moved = self.snapshot(names) != before
        back = self.apply(patch["data"], not reverse)[0] and self.snapshot(names) == before
        self.restore(before)
        return moved and back

    def restore(self, states):
        """Bring files back to a snapshot."""
        for name, state in states.items():
            _put(os.path.join(self.folder, name), state)


def _read(path):
    state = _state(path)
    return state[2] if state else None


def _state(path):
    """``(kind, executable, bytes)`` of a file or link, None when there is none, ``("folder", False, None)`` for a folder."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(info.st_mode):
        return "link", False, os.fsencode(os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return "folder", False, None
    with open(path, "rb") as stream:
        return "file", bool(info.st_mode & 0o100), stream.read()


def _put(path, state):
    """Write what :func:`_state` returned, through a temporary name; keeps mode and owner of what it replaces."""
    if _state(path) == state or (state and state[0] == "folder"):
        return
    if state is None:
        os.unlink(path)
        return
    kind, executable, data = state
    folder = os.path.dirname(path)
    _make_folder(folder)
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        old = None
    handle, temporary = tempfile.mkstemp(prefix=".vllm-ascend-fleet-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data if kind == "file" else b"")
        if kind == "link":
            os.unlink(temporary)
            os.symlink(os.fsdecode(data), temporary)
        else:
            mode = stat.S_IMODE(old.st_mode) if old and stat.S_ISREG(old.st_mode) else 0o644
            os.chmod(temporary, (mode | ((mode & 0o444) >> 2)) if executable else (mode & ~0o111))
        owner = old or os.stat(folder)
        if os.geteuid() == 0:
            os.chown(temporary, owner.st_uid, owner.st_gid, follow_symlinks=False)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _make_folder(folder):
    """Make a folder and those above it, each with the owner of the one above."""
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    _make_folder(above)
    os.mkdir(folder)
    if os.geteuid() == 0:
        owner = os.stat(above)
        os.chown(folder, owner.st_uid, owner.st_gid)


def _prune(tree, name):
    """Remove folders that a deleted file leaves empty, as git does."""
    folder = os.path.dirname(os.path.join(tree, name))
    while folder != tree and os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)
        folder = os.path.dirname(folder)


# --- the series -----------------------------------------------------------------------------------------------------


def analyse_tree(tree, patches, git, workdir):
    """Judge the patches of one tree, given in the order in which they are applied.

    Returns ``{tree, verdicts, current, without, with}``: the last three are ``{name: state}`` of the files as they are, with
    every patch of the series taken out, and with every one put in (the last is None when something does not fit).
    A patch may build on one before it, so those that are there are taken out from the last to the first.
    """
    names = _names(patches)
    scratch = Scratch(tempfile.mkdtemp(prefix="tree-", dir=workdir), git)
    scratch.fill(tree, names)
    current = scratch.snapshot(names)
    there, unclear = set(), set()
    for number in range(len(patches) - 1, -1, -1):
        patch = patches[number]
        if not scratch.round_trip(patch, reverse=True):
            continue
        if scratch.round_trip(patch, reverse=False):
            contents = {name: scratch.read(name) for name in _names([patch])}
            back, forward = (shift_of(patch["entries"], contents, side) for side in ("after", "before"))
            if back == forward:
                unclear.add(number)
            if back >= forward:
                continue
        there.add(number)
        scratch.apply(patch["data"], reverse=True)
    without = scratch.snapshot(names)
    verdicts, fits = [], True
    for number, patch in enumerate(patches):
        verdict = {"patch": patch["name"], "tree": tree, "sha256": patch["sha256"], "verdict": THERE if number in there else APPLIES, "files": []}
        if number in unclear:
            fits = False
            verdict.update(verdict=CONFLICTS, reason="it fits forward and back at the same place, so nobody can tell whether it is there")
        elif scratch.round_trip(patch, reverse=False):
            verdict["files"] = [{"path": entry["new"] or entry["old"], "state": verdict["verdict"]} for entry in patch["entries"]]
            scratch.apply(patch["data"])
        else:
            fits = False
            message = scratch.apply(patch["data"], check=True)[1]
            verdict["files"] = _judge_files(patch, scratch, message)
            verdict["verdict"] = summarise([entry["state"] for entry in verdict["files"]])
            if verdict["verdict"] == CONFLICTS and not any(entry["state"] == CONFLICTS for entry in verdict["files"]):
                verdict["reason"] = message or "git takes it neither forward nor back to the same bytes"
        verdicts.append(verdict)
    return {"tree": tree, "names": names, "verdicts": verdicts, "current": current, "without": without,
            "with": scratch.snapshot(names) if fits else None}


def _judge_files(patch, scratch, message):
    """State of each file on its own: first what git says of that entry alone, then the content."""
    files = []
    for entry in patch["entries"]:
        alone = dict(patch, data=entry["text"], entries=[entry])
        judged = file_state(entry, scratch.read(entry["old"]), scratch.read(entry["new"]))
        if judged["state"] != THERE and scratch.round_trip(alone, reverse=False):
            judged = {"path": judged["path"], "state": APPLIES}
        elif scratch.round_trip(alone, reverse=True):
            judged = {"path": judged["path"], "state": THERE}
        elif judged["state"] in (APPLIES, THERE):
            judged = dict(judged, state=CONFLICTS, reason=message or "git refuses it")
        files.append(judged)
    return files


def analyse(patches, git="git", workdir=None):
    """Judge a series ``[{file, tree, sha256}]``. Returns the list of :func:`analyse_tree` results, one for each tree.

    The trees are only read. PatchError when a tree or a patch file is unusable.
    """
    loaded = [(check_tree(each["tree"]), load_patch(each["file"], each.get("sha256"))) for each in patches]
    trees = []
    for tree, dummy in loaded:
        if tree not in trees:
            trees.append(tree)
    scratch = tempfile.mkdtemp(prefix="vllm-ascend-fleet-", dir=workdir)
    try:
        return [analyse_tree(tree, [patch for where, patch in loaded if where == tree], git, scratch) for tree in trees]
    finally:
        shutil.rmtree(scratch)


def verdicts_of(patches, analyses):
    """The verdicts in the order of the series."""
    left = {result["tree"]: list(result["verdicts"]) for result in analyses}
    return [left[os.path.realpath(each["tree"])].pop(0) for each in patches]


def plan_change(analyses, state):
    """What must be written to reach ``present`` or ``absent``: ``{tree: {name: new state}}``.

    PatchError with one line for each patch that stands in the way.
    """
    blocking = [verdict for result in analyses for verdict in result["verdicts"] if verdict["verdict"] in (PARTLY, CONFLICTS)]
    if blocking:
        raise PatchError("; ".join(describe(verdict) for verdict in blocking), [each for result in analyses for each in result["verdicts"]])
    change = {}
    for result in analyses:
        target = result["with" if state == "present" else "without"]
        change[result["tree"]] = {name: target[name] for name in result["names"] if target[name] != result["current"][name]}
    return change


def commit(change):
    """Write a change to the trees, all or nothing: on any error every file is put back as it was, then the error is raised."""
    done = []
    try:
        for tree in sorted(change):
            for name in sorted(change[tree]):
                path = os.path.join(tree, name)
                info = os.lstat(path) if os.path.lexists(path) else None
                done.append((tree, name, _state(path), info))
                _put(path, change[tree][name])
                if change[tree][name] is None:
                    _prune(tree, name)
        for tree in change:
            for name, wanted in change[tree].items():
                if _state(os.path.join(tree, name)) != wanted:
                    raise PatchError("%s in %s is not what was written; is something else writing there?" % (name, tree))
    except BaseException:
        for tree, name, before, info in reversed(done):
            _put(os.path.join(tree, name), before)
            if before is None:
                _prune(tree, name)
            elif info is not None and before[0] == "file":
                os.chmod(os.path.join(tree, name), stat.S_IMODE(info.st_mode))
                os.utime(os.path.join(tree, name), ns=(info.st_atime_ns, info.st_mtime_ns))
        raise


def run_series(patches, state="present", act=True, git="git", workdir=None):
    """Bring a series to a state on its trees. The one entry point of the module and of the image build.

    Returns ``{changed, verdicts, actions, files: {tree: {name: sha256 or None}}, change: [(tree, name, before, after)]}``;
    ``files`` says what the named files hold afterwards. Raises PatchError, with the trees as they were.
    """
    try:
        analyses = analyse(patches, git, workdir)
        change = plan_change(analyses, state)
        verdicts = verdicts_of(patches, analyses)
        if act and any(change.values()):
            commit(change)
            wanted = THERE if state == "present" else APPLIES
            for verdict in verdicts_of(patches, analyse(patches, git, workdir)):
                if verdict["verdict"] != wanted:
                    commit({result["tree"]: {name: result["current"][name] for name in change[result["tree"]]} for result in analyses})
                    raise PatchError("%s was written to %s but reads as %s afterwards; the tree was put back"
                                     % (verdict["patch"], verdict["tree"], verdict["verdict"]))
    except OSError as error:
        raise PatchError("%s: %s" % (error.filename or "work tree", error.strerror or error))
    verb = "apply %s to %s" if state == "present" else "take %s out of %s"
    order = verdicts if state == "present" else list(reversed(verdicts))
    actions = [verb % (each["patch"], each["tree"]) for each in order if each["verdict"] == (APPLIES if state == "present" else THERE)]
    files = {}
    for result in analyses:
        target = result["with" if state == "present" else "without"]
        files[result["tree"]] = {name: hashlib.sha256(entry[2]).hexdigest() if entry and entry[2] is not None else None
                                 for name, entry in target.items()}
    moves = [(result["tree"], name, result["current"][name], change[result["tree"]][name])
             for result in analyses for name in sorted(change[result["tree"]])]
    return {"changed": bool(moves), "verdicts": verdicts, "actions": actions, "files": files, "change": moves}
