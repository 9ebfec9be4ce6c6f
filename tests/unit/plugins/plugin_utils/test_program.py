# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs for hosts, run by every Python that this machine has."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import release
from ansible_collections.vllm_ascend.fleet.plugins.plugin_utils import program

PLUGINS = pathlib.Path(program.__file__).absolute().parents[1]
FIXTURES = pathlib.Path(__file__).absolute().parents[3] / "fixtures"


def pythons():
    """{version: interpreter}: the one that runs this, and those of pyenv."""
    found = {"%d.%d" % sys.version_info[:2]: sys.executable}
    for path in sorted(pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")).glob("versions/*/bin/python")):
        found.setdefault(".".join(path.parents[1].name.split(".")[:2]), str(path))
    return found


def age(version):
    return tuple(int(part) for part in version.split("."))


NEW = [path for version, path in pythons().items() if age(version) >= (3, 7)]
OLD = [path for version, path in pythons().items() if age(version) < (3, 7)]
# A Python that says it is old, for machines that have none.
PRETENDER = "import sys\nsys.version_info = (3, 6, 9)\nexec(compile(sys.stdin.read(), 'program', 'exec'))"


def run(entry, arguments, python=sys.executable, *words):
    """What comes back from a program that one interpreter reads from its standard input."""
    done = subprocess.run([python, *(words or ["-"])], input=program.text(entry, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    return program.answer(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


@pytest.mark.parametrize("command", [[path, "-"] for path in OLD] + [[sys.executable, "-c", PRETENDER]])
def test_an_old_python_says_that_it_is_too_old(command):
    said = run("look:answer", {}, *command)
    assert said["failed"] and said["kind"] == "python"
    assert re.fullmatch(r"Python (2\.7|3\.[0-6]) at /\S+ is too old, 3\.7 is wanted", said["msg"])


WITHOUT_COMPILER = """
import builtins, importlib.util, sys
def refuse(text, name, mode, compile=compile):
    raise ValueError("compiled " + name)
program = compile(sys.stdin.read(), "program", "exec")
builtins.compile = refuse
exec(program)
"""


def test_a_python_of_the_controller_s_version_compiles_nothing_and_another_does():
    assert run("survey_sources:answer", {}, sys.executable, "-c", WITHOUT_COMPILER)["msg"] == "survey_sources failed on the host: KeyError: 'paths'"
    other = WITHOUT_COMPILER.replace("builtins.compile", "importlib.util.MAGIC_NUMBER = b'other'; builtins.compile")
    said = run("survey_sources:answer", {}, sys.executable, "-c", other)
    # Python 3.13 compiles what it shows of a traceback, so there the program ends before its answer.
    assert "compiled survey_sources.py" in said["msg"] + said.get("module_stderr", "")


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def host(tmp_path):
    """Parameters of a host that knows no unit and no container."""
    return {
        "systemctl": script(tmp_path / "systemctl", 'for unit; do case $unit in *.service) printf "Id=%s\\nLoadState=not-found\\nActiveState=inactive\\n\\n" '
                                                    '"$unit";; esac; done\n'),
        "engine": "docker", "engine_path": script(tmp_path / "docker", "echo '[]'; echo 'Error: No such container: x' >&2; exit 1\n"),
        "state_directory": str(tmp_path / "state"), "unit_directory": str(tmp_path), "secret_directory": str(tmp_path / "secrets")}


@pytest.mark.parametrize("python", NEW)
def test_every_python_of_hosts_looks(python, tmp_path):
    npu_smi = script(tmp_path / "npu-smi", "cat %s\n" % (FIXTURES / "npu-smi" / "01-910B2-8chip-healthy.txt"))
    said = run("look:answer", {"prove": "all", "load": True, "survey": {
        "ports": [], "paths": [], "weights": [], "state_directory": str(tmp_path), "unit_prefix": "vllm-ascend-", "engine": "podman",
        "engine_path": "/nonexistent/podman", "npu_smi_path": npu_smi, "timeout_s": 20, "deep": False, "texts": False, "nonce": None}}, python)
    assert said.get("survey"), said
    assert len(said["survey"]["chips"]) == 8 and said["proof"] == {} and said["load"] == {}
    version = subprocess.run([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"], stdout=subprocess.PIPE, check=True).stdout
    assert said["survey"]["host"]["python"] == version.decode().strip()


@pytest.mark.parametrize("python", NEW)
def test_every_python_of_hosts_foretells_a_change(python, host):
    files = {"vllm-ascend-one.service": release.MARKER + " one\n", "environment": "A=ä\n", "manifest.json": "{}\n"}
    said = run("host_change:begin", {"id": "c1", "check": True, "program": "", "request": {
        "state": "present", "instances": [{"name": "one", "release": {"id": "a" * 12, "files": files}}], "params": host, "prove": {}}}, python)
    assert said.get("changed") is True and said["job"] is None, said
    assert said["actions"][0] == "write release %s of one" % ("a" * 12) and said["instances"]["one"]["release"] == "a" * 12
    assert not os.path.exists(host["state_directory"]), "check mode changes nothing"


def entries():
    """Every ``file:function`` that an action or a plugin_util sends to a host."""
    found = set()
    for path in [*PLUGINS.glob("action/*.py"), *PLUGINS.glob("plugin_utils/*.py")]:
        found.update(re.findall(r'"([a-z_]{3,}:[a-z_]+)"', path.read_text(encoding="utf-8")))
    return sorted(found)


def test_something_is_sent_to_hosts():
    assert {"look:answer", "host_change:begin", "host_change:main", "job_host:answer", "lease_host:answer", "drain_host:answer"} <= set(entries())


@pytest.mark.parametrize("entry", entries())
@pytest.mark.parametrize("python", [sys.executable, min(NEW, key=lambda path: (path == sys.executable, path))])
def test_a_program_has_all_that_it_needs(entry, python):
    said = run(entry, None, python)
    # Whatever it says of such arguments, its own function says it.
    assert said["failed"] and "Error" in said["exception"] and "ImportError" not in said["exception"] and "ModuleNotFound" not in said["exception"], said
    assert "AttributeError: module" not in said["exception"], said


@pytest.mark.parametrize("part", sorted(path.stem for path in PLUGINS.glob("module_utils/*.py")))
def test_what_readers_need_is_left_out_and_nothing_else(part):
    sent, source = dict(program.files(part))[part], (PLUGINS / "module_utils" / (part + ".py")).read_text(encoding="utf-8")
    assert len(sent.splitlines()) == len(source.splitlines()), "a traceback has to name the right line"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) and len(node.body) > 1:
            del node.body[0]
    assert ast.dump(ast.parse(sent)) == ast.dump(tree)


def test_a_file_comes_after_those_that_it_imports():
    seen = set()
    for name, text in program.files("host_change"):
        needed = re.findall(r"^from %s import (.+)$" % re.escape(program.PACKAGE), text, re.M)
        assert {each.split(" as ")[0].strip() for line in needed for each in line.split(",")} <= seen, name
        seen.add(name)
    assert "ansible" not in {name.split(".")[0] for name in seen}


@pytest.mark.parametrize("before, after", [("", ""), ("Welcome to a2-1!\n", "\nbye\n"), ("Last login: today ", "\n"), (program.MARK + "x\n", "\n")])
def test_a_host_that_greets_is_understood(before, after):
    done = subprocess.run([sys.executable, "-"], input=program.text("lease_host:answer", {"directory": "/nonexistent", "act": "look"}),
                          stdout=subprocess.PIPE, check=True)
    said = program.answer(0, before + done.stdout.decode("utf-8").rstrip("\n") + after, "noise")
    assert said["given"] is True and said["held"] == {}


@pytest.mark.parametrize("stdout", ["", "This account is currently not available.\n", program.MARK + "not base64!\n", program.MARK + "YWJj\n"])
def test_a_host_that_says_something_else_has_failed(stdout):
    said = program.answer(7, stdout, "no such thing")
    assert said["failed"] and (said["rc"], said["module_stdout"], said["module_stderr"]) == (7, stdout, "no such thing")


@pytest.mark.parametrize("entry, arguments, words", [
    ("job_host:answer", {"id": "No/Good", "state": "followed", "files": {}, "environment": {}, "secrets": {}}, "job id 'No/Good': use small letters"),
    ("look:answer", {}, "look failed on the host: KeyError: 'survey'"),
    ("host_change:clean", {"params": {"state_directory": 5}}, "host_change failed on the host: TypeError: "),
])
def test_an_exception_becomes_one_line(entry, arguments, words):
    said = run(entry, arguments)
    assert said["failed"] and said["msg"].startswith(words) and "\n" not in said["msg"]
    assert said["exception"].startswith("Traceback")


def test_a_refused_controller_is_told_in_our_own_words(host):
    os.mkdir(host["state_directory"])
    with open(os.path.join(host["state_directory"], "host.json"), "w", encoding="utf-8") as stream:
        stream.write('{"epoch": 7, "owner": "bob@c2"}')
    request = {"state": "present", "instances": [], "params": host, "fence": {"epoch": 6, "owner": "ann@c1"}}
    said = run("host_change:begin", {"id": "c1", "check": False, "program": "", "request": request})
    assert said["failed"] and said["msg"].startswith("this host follows the rollout of bob@c2 (epoch 7), which took over from this one (epoch 6)")


def test_what_a_tool_said_comes_with_its_failure(host):
    host["engine_path"] = script(pathlib.Path(host["engine_path"]).with_name("broken"), "echo 'daemon is away' >&2; exit 5\n")
    said = run("host_change:begin", {"id": "c1", "check": True, "program": "", "request": {
        "state": "absent", "instances": [{"name": "one"}], "params": host}})
    assert said["msg"].endswith("daemon is away") and (said["rc"], said["stderr"].strip()) == (5, "daemon is away")


def test_neither_the_program_nor_its_arguments_stand_in_the_command():
    assert len(program.command(None, ["python3"])) < 300 and program.command("/opt/py", [], "-") == "exec /opt/py -sSE -"


def shell(command, text, path=os.environ["PATH"]):
    return subprocess.run(["/bin/sh", "-c", command], input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, env={"PATH": path})


def test_the_first_python_that_the_host_has_runs_it(tmp_path):
    script(tmp_path / "shim", "echo 'pyenv: command not found' >&2; exit 127\n")
    script(tmp_path / "first", "exec %s \"$@\"\n" % sys.executable)
    script(tmp_path / "second", "echo second\n")
    done = shell(program.command(None, ["no-such-python", "shim", "first", "second"]), b"import sys; print('first'); sys.exit(3)", str(tmp_path))
    assert (done.stdout.decode().strip(), done.returncode) == ("first", 3)
    none = shell(program.command(None, ["no-such-python", "shim"]), b"", str(tmp_path))
    assert none.returncode == 127 and none.stderr.endswith(b"no Python was found on this host\n")
