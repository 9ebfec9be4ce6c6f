# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of module_utils as one program for a host's Python, without Ansible on the way there. Controller only.

What an ordinary module spends most of its time with is Ansible's own basics: three times what a survey takes. A program is the text of the
files that its function needs, and travels to ``python -`` on standard input, so neither it nor its arguments stand in an argument list.
"""

from __future__ import annotations

import ast
import base64
import functools
import importlib.util
import json
import marshal
import pathlib
import sys
import types
import zlib

PACKAGE = "ansible_collections.vllm_ascend.fleet.plugins.module_utils"
FOLDER = pathlib.Path(__file__).absolute().parents[1] / "module_utils"
# Programs need what comes with Python and nothing that a site or a user has added. Python 2 knows these as well, and says that it is too old.
FLAGS = "-sSE"
# What every host is asked in every run travels compiled as well, which is twice as much. Others keep to what a pipe holds, so that ssh can say why it
# was refused while it is given them.
LOOKS = ("look:answer", "survey_sources:answer")
# Before the answer; a login script may greet first.
MARK = "vllm-ascend-fleet-answer:"

# Runs on any Python that a host may have: an old one must be able to say so.
BOOTSTRAP = '''\
import base64, json, sys, zlib
def _say(answer):
    text = json.dumps(answer).encode("utf-8")
    sys.stdout.write("%(mark)s" + base64.b64encode(zlib.compress(text, 1)).decode("ascii") + "\\n")
    sys.stdout.flush()
if sys.version_info < (3, 7):
    _say({"failed": True, "kind": "python", "msg": "Python %%d.%%d at %%s is too old, 3.7 is wanted" %% (sys.version_info[:2] + (sys.executable,))})
    sys.exit(0)
import importlib, importlib.machinery, importlib.util, marshal, types
def _open(text):
    return json.loads(zlib.decompress(base64.b64decode(text)).decode("utf-8"))
_parts = _open("%(parts)s")
_name = ""
for _word in "%(package)s".split("."):
    _outer, _name = sys.modules.get(_name), (_name + "." + _word).lstrip(".")
    _module = sys.modules.setdefault(_name, types.ModuleType(_name))
    _module.__path__ = []
    if _outer is not None:
        setattr(_outer, _word, _module)
# A Python of the controller's version takes what that one has compiled. Any other one compiles what it imports, which takes as long as all else.
class _Files:
    texts = dict((_name + "." + _part, _text) for _part, _text in _parts["files"])
    codes = marshal.loads(zlib.decompress(base64.b64decode("%(codes)s"))) if importlib.util.MAGIC_NUMBER.hex() == _parts["magic"] else {}
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, cls) if name in cls.texts else None
    @staticmethod
    def create_module(spec):
        return None
    @classmethod
    def exec_module(cls, module):
        part = module.__name__.rpartition(".")[2]
        exec(cls.codes.get(part) or compile(cls.texts[module.__name__], part + ".py", "exec"), module.__dict__)
sys.meta_path.insert(0, _Files)
_file, _function = _parts["entry"]
try:
    _answer = getattr(importlib.import_module(_name + "." + _file), _function)(_open("%(arguments)s"))
except Exception as _error:
    import traceback
    _answer = {"failed": True, "msg": str(_error) if type(_error).__name__ in _parts["known"] else "%%s failed on the host: %%s: %%s" %% (
        _file, type(_error).__name__, _error), "exception": traceback.format_exc()}
    _answer.update(getattr(_error, "details", None) or {})
_say(_answer)
'''
# Their text is written for the user.
KNOWN = ("CommandError", "Fenced", "JobError", "RegistryError", "ReleaseError", "SupplyError", "ValueError")


def _statements(node):
    """A node and every statement within it; expressions, of which there are ten times as many, are of no interest."""
    yield node
    for field in ("body", "orelse", "finalbody", "handlers"):
        for each in getattr(node, field, ()):
            yield from _statements(each)


@functools.lru_cache(maxsize=None)
def _needs(part):
    """(text of a file of module_utils without what only readers need, names of the files that it imports)."""
    text = (FOLDER / (part + ".py")).read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = []
    for node in _statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE + "."):
            names.append(node.module[len(PACKAGE) + 1:])
    lines = text.split("\n")
    for node in _statements(tree):
        # Line numbers stay as they are; a docstring that is a body's only statement stays too.
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) and len(node.body) > 1:
            first = node.body[0]
            lines[first.lineno - 1:first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    return "\n".join(lines), tuple(names)


@functools.lru_cache(maxsize=None)
def files(part):
    """The files of module_utils that one needs, each behind those that it imports, as ((name, text), ...)."""
    found = {}

    def add(name):
        if name not in found:
            text, names = _needs(name)
            found[name] = None
            for other in names:
                add(other)
            # Dictionaries keep order: put it behind what it needs.
            del found[name]
            found[name] = text

    add(part)
    return tuple(found.items())


def text(entry, arguments):
    """A program.

    :param str entry: ``file:function`` of module_utils; the function takes one dictionary and returns another.
    :param dict arguments: what it is given; goes nowhere but into the program.
    :returns: bytes for the standard input of a Python.
    """
    parts, codes = _parts(entry)
    return (BOOTSTRAP % {"mark": MARK, "package": PACKAGE, "parts": parts, "codes": codes, "arguments": _packed(arguments)}).encode("utf-8")


def _without_places(code):
    """Code that knows its functions but not their lines and columns, which are half of what would travel."""
    inner = tuple(_without_places(each) if isinstance(each, types.CodeType) else each for each in code.co_consts)
    # Objects/locations.md of CPython: an entry with its high bit set, of kind 15 (no place), for one to eight instructions.
    whole, rest = divmod(len(code.co_code) // 2, 8)
    return code.replace(co_consts=inner, co_linetable=b"\xff" * whole + (bytes([0xf8 + rest - 1]) if rest else b""))


def _packed(data):
    return base64.b64encode(zlib.compress(json.dumps(data).encode("utf-8"))).decode("ascii")


@functools.lru_cache(maxsize=None)
def _parts(entry):
    part, function = entry.split(":")
    needed = files(part)
    codes = {name: compile(content, name + ".py", "exec") for name, content in needed if entry in LOOKS}
    if (3, 11) <= sys.version_info < (3, 15):
        codes = {name: _without_places(code) for name, code in codes.items()}
    parts = {"files": needed, "entry": [part, function], "known": KNOWN, "magic": importlib.util.MAGIC_NUMBER.hex()}
    return _packed(parts), base64.b64encode(zlib.compress(marshal.dumps(codes))).decode("ascii")


def command(python, fallbacks, path="-"):
    """The shell command that runs a program from its standard input, or from a file.

    :param python: the interpreter that the user names, or None for the first of the fallbacks that the host has.
    """
    if python:
        return "exec %s %s %s" % (python, FLAGS, path)
    # A shim of pyenv's is there and ends with 127, before it has read anything, when there is nothing behind it.
    return ("for p in %s; do command -v \"$p\" >/dev/null 2>&1 || continue; \"$p\" %s %s; rc=$?; [ $rc -eq 127 ] || exit $rc; done; "
            "echo 'no Python was found on this host' >&2; exit 127") % (" ".join(fallbacks), FLAGS, path)


def answer(rc, stdout, stderr):
    """What came back, in the shape of a module's result: the program's answer, or ``failed`` with what was said instead."""
    for line in reversed(stdout.splitlines()):
        # A greeting may end without a line break.
        dummy, mark, packed = line.rpartition(MARK)
        if mark:
            try:
                return json.loads(zlib.decompress(base64.b64decode(packed.strip())).decode("utf-8"))
            except (ValueError, zlib.error):
                break
    return {"failed": True, "rc": rc, "msg": "", "module_stdout": stdout[-2000:], "module_stderr": stderr[-2000:]}
