#!/usr/bin/env python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: (c) 2026, The vllm_ascend.fleet authors
"""Run the tiers of tests, three lanes of them side by side, and end with one line of counts: `tests/run.py [tier ...]`.

A tier that ran no test counts as one failure, unless it says what this machine lacks: a green run must have tested something. FAIL_FAST=1 begins no other tier after one that fails.
Output goes to .cache/test/<tier>-<name>.log; JUnit files go beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import ansible_test  # noqa: E402

ROOT = ansible_test.ROOT
BIN = Path(sys.executable).parent
LOGS = ROOT / ".cache" / "test"
FLEET = "vllm_ascend.fleet"
CHOSEN: list[str] = []
ONLY_HERE = ("tests/unit/house", "tests/unit/rehearsal", "tests/unit/plugins/plugin_utils/test_fan_out.py")
# Two lanes use the same cores.
PREPARING = threading.Lock()


class Result(NamedTuple):
    """What one command counted; `note` is for people."""

    name: str
    passed: int
    failed: int
    skipped: int = 0
    note: str = ""


class Run(NamedTuple):
    rc: int
    output: str
    log: Path


def run(name: str, argv: list, timeout: int = 1200, cwd: Path = ROOT, **environment: str) -> Run:
    """Run a command without a terminal or stdin; everything that it prints goes to its log."""
    log = LOGS / f"{name}.log"
    base = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", LC_ALL="C.UTF-8", NO_COLOR="1", ANSIBLE_HOME=str(ROOT / ".cache" / "ansible"))
    with open(log, "w", encoding="utf-8") as stream:
        try:
            rc = subprocess.run(
                [str(part) for part in argv], cwd=cwd, env={**base, **environment}, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, timeout=timeout, check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            stream.write(f"\nstopped: not finished after {timeout} s\n")
            rc = 124
    return Run(rc, log.read_text(encoding="utf-8", errors="replace"), log)


def reason(done: Run, why: str) -> str:
    """Why it failed, where the whole output is, and the lines of it that speak of errors, or the last ones."""
    lines = done.output.splitlines()
    errors = [line for line in lines if re.match(r"(ERROR|FAILED|fatal:|\[ERROR\]|CRITICAL)", line)]
    return "\n".join([f"{why}; {done.log}"] + errors[:40] or lines[-25:])


def one(name: str, done: Run, complaint: str = "") -> Result:
    """One command, one test; `complaint` fails it whatever its exit code says."""
    if done.rc == 0 and not complaint:
        return Result(name, 1, 0)
    return Result(name, 0, 1, note=reason(done, complaint or f"exit {done.rc}"))


def junit(name: str, done: Run, files: list[Path]) -> Result:
    """Count the cases of JUnit files. What ansible-test calls not applicable is not a test; a failing command fails at least once."""
    passed = failed = skipped = 0
    broken = []
    for path in files:
        for case in ElementTree.parse(path).iter("testcase"):
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                broken.append(f"{case.get('classname') or ''} {case.get('name')}".strip())
            elif skip is None:
                passed += 1
            elif "No tests applicable" not in (skip.text or ""):
                skipped += 1
    if done.rc != 0 or not passed:
        failed = max(failed, 1)
    if not failed:
        return Result(name, passed, 0, skipped)
    why = ", ".join(broken[:12]) or (f"exit {done.rc}" if done.rc else "no test ran")
    return Result(name, passed, failed, skipped, reason(done, why))


def lint() -> Iterator[Result]:
    """Style and documentation, nothing is executed."""
    done = run("lint-ansible-lint", [BIN / "ansible-lint", "--strict", "--nocolor"])
    # ansible-lint says "Passed" when playbooks failed to load or when there was nothing to look at.
    loading = re.search(r"(?i)failed to load|no inventory was parsed|unable to (load|parse)|another version of", done.output)
    looked = re.search(r"in (\d+) files processed|(\d+) files? (?:processed|encountered)", done.output)
    complaint = f"not everything was loaded ({loading.group(0)})" if loading else "" if looked or done.rc else "no file was looked at"
    yield one("ansible-lint", done, complaint)
    yield one("yamllint", run("lint-yamllint", [BIN / "yamllint", "--strict", "."]))
    yield one("changelog fragments", run("lint-changelog", [BIN / "antsibull-changelog", "lint"]))
    # It keeps a log in the home directory.
    yield one("documentation", run("lint-docs", [BIN / "antsibull-docs", "lint-collection-docs", "--plugin-docs", "."], HOME=str(LOGS)))
    for script in sorted((ROOT / ".ci").iterdir()):
        yield one(f"bash -n {script.name}", run(f"lint-{script.name}", ["bash", "-n", script]))


def pytest_run(name: str, *arguments: str, timeout: int = 1200) -> Result:
    """One pytest on the working core, counted by its JUnit file."""
    slug = re.sub(r"\W+", "-", name)
    report = LOGS / f"{slug}.xml"
    report.unlink(missing_ok=True)
    done = run(slug, [BIN / "python", "-m", "pytest", "-q", f"--junit-xml={report}", *arguments], timeout=timeout)
    return junit(name, done, [report] if report.exists() else [])


def units() -> Iterator[Result]:
    """Unit tests on the working core; beside core_units, which has all others on two more, those that need a checkout or no other worker beside them."""
    yield pytest_run("units on the working core", *(ONLY_HERE if core_units.__name__ in CHOSEN else ()))


def chosen_cores(found: dict[str, Path]) -> Iterator[tuple[ansible_test.Core | None, str]]:
    """The oldest core and the newest that the interpreters here can run; (None, why) for each that they cannot."""
    oldest, *later = ansible_test.cores()
    yield oldest, ""
    for core in reversed(later):
        try:
            ansible_test.controller_python(core, found)
        except ansible_test.Missing as error:
            yield None, str(error)
        else:
            yield core, ""
            return


def on_cores(kind: str) -> Iterator[tuple[ansible_test.Core, dict[str, Path], list[str], dict[str, str], Path] | Result]:
    """What a run of ansible-test needs, per core, or why it cannot be had."""
    found = ansible_test.interpreters()
    copy = ansible_test.make_copy(kind)
    for core, why in chosen_cores(found):
        if core is None:
            yield Result(f"{kind} on a newer core", 0, 0, 1, f"SKIPPED: {why}")
            continue
        try:
            with PREPARING:
                argv, environment = ansible_test.command(core, found)
        except ansible_test.Missing as error:
            yield Result(f"{kind} on ansible-core {core.version}", 0, 1, note=str(error))
            continue
        yield core, found, argv, environment, copy


def ansible_test_run(name: str, argv: list[str], environment: dict[str, str], copy: Path) -> Result:
    """One run of ansible-test in the copy, counted by its JUnit files."""
    reports = copy / "tests" / "output" / "junit"
    shutil.rmtree(reports, ignore_errors=True)
    slug = re.sub(r"\W+", "-", name)
    done = run(slug, argv, cwd=copy, **environment)
    kept = LOGS / slug
    shutil.rmtree(kept, ignore_errors=True)
    if reports.is_dir():
        shutil.copytree(reports, kept)
    return junit(name, done, sorted(kept.glob("*.xml")))


def core_units() -> Iterator[Result]:
    """Unit tests under the oldest and the newest core, module code also on the oldest and newest Pythons of hosts."""
    for item in on_cores("units"):
        if isinstance(item, Result):
            yield item
            continue
        core, found, argv, environment, copy = item
        for python in dict.fromkeys([ansible_test.controller_python(core, found)] + core.targets):
            name = f"units on ansible-core {core.version}, Python {python}"
            if python in found:
                yield ansible_test_run(name, argv + ["units", "--venv", "--python", python], environment, copy)
            else:
                yield Result(name, 0, 0, 1, f"SKIPPED: no Python {python} on this machine")


def sanity() -> Iterator[Result]:
    """ansible-test sanity on the oldest and the newest core, and a planted fault that it has to see."""
    for item in on_cores("sanity"):
        if isinstance(item, Result):
            yield item
            continue
        core, found, argv, environment, copy = item
        local = argv + ["sanity", "--local", "--junit"]
        yield ansible_test_run(f"sanity on ansible-core {core.version}", local, environment, copy)
        planted = copy / "plugins" / "modules" / "planted_fault.py"
        planted.write_text("def main():\n    pass\n")
        name = f"planted fault on ansible-core {core.version}"
        done = run(re.sub(r"\W+", "-", name), argv + ["sanity", "--local", "--test", "validate-modules", str(planted.relative_to(copy))], cwd=copy, **environment)
        planted.unlink()
        seen = done.rc != 0 and "missing-documentation" in done.output
        yield Result(name, int(seen), int(not seen), note="" if seen else f"sanity did not see it; {done.log}")


def package() -> Iterator[Result]:
    """The built artifact: what is in it, and that every playbook and document loads from the checkout and from the installed collection."""
    paths = LOGS / "installed"
    installed = ansible_test.build(paths)
    (paths / "ansible.cfg").write_text("")
    with tarfile.open(next(paths.glob("*.tar.gz"))) as archive:
        stray = [name for name in archive.getnames() if re.match(r"(collections|inventories|molecule|prod|reports|\.)", name)]
    yield Result("tarball holds only the collection", int(not stray), int(bool(stray)), note=", ".join(stray[:10]))

    playbooks = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    play = [BIN / "ansible-playbook", "--syntax-check"]
    for name in playbooks:
        yield one(f"checkout: playbooks/{name}.yml", run(f"package-checkout-{name}", play + [f"playbooks/{name}.yml", "-i", "inventories/prod"]))
        command = play + [f"{FLEET}.{name}", "-i", ROOT / "inventories" / "prod"]
        done = run(f"package-installed-{name}", command, cwd=paths, ANSIBLE_COLLECTIONS_PATH=str(paths))
        yield one(f"installed: {FLEET}.{name}", done)
    for path in sorted(ROOT.glob("deploy_*.yml")):
        yield one(f"checkout: {path.name} -i prod", run(f"package-{path.stem}", play + [path.name, "-i", "prod"]))

    documents = [("module", path.stem) for path in sorted((installed / "plugins" / "modules").glob("*.py"))]
    documents += [("role", path.name) for path in sorted((installed / "roles").glob("*"))]
    for kind in ("module", "role"):
        names = [f"{FLEET}.{name}" for which, name in documents if which == kind]
        if names:
            done = run(f"package-doc-{kind}", [BIN / "ansible-doc", "-t", kind] + names, cwd=paths, ANSIBLE_COLLECTIONS_PATH=str(paths))
            complaint = ", ".join(name for name in names if name.upper() not in done.output.upper())
            yield one(f"ansible-doc of {len(names)} {kind}s", done, f"no documentation of {complaint}" if complaint else "")


def browser() -> Iterator[Result]:
    """The report of a run in a real Chromium: on a desk, at night, on a phone and on paper, with 500 hosts; pictures in .cache/test/screenshots."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)) and os.geteuid() == 0 and shutil.which("apt-get"):
        for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
            run(f"browser-{step[0]}", ["apt-get", "-qq", *step], DEBIAN_FRONTEND="noninteractive")
    if any(map(shutil.which, names)):
        yield pytest_run("report in a browser", "tests/browser")
    else:
        yield Result("report in a browser", 0, 0, 1, "SKIPPED: no Chromium on this machine and none could be installed; apt-get install chromium")


def molecule() -> Iterator[Result]:
    """One scenario per role, on one rehearsal fleet that all of them share."""
    for path in sorted((ROOT / "molecule").glob("*/molecule.yml")):
        name = path.parent.name
        started = time.monotonic()
        done = run(f"molecule-{name}", [BIN / "molecule", "test", "--scenario-name", name])
        missing = re.search(r"Skipping, (\w+) .*(?:not configured|missing playbook)", done.output)
        result = one(name, done, f"a step without a playbook: {missing.group(0)}" if missing else "")
        yield result._replace(name=f"{name} ({time.monotonic() - started:.0f} s)")


def end_to_end() -> Iterator[Result]:
    """An operator's day on the rehearsal fleet: the whole run, its repetition, bad input, rollback and removal."""
    yield pytest_run("end to end", "tests/end_to_end", timeout=2700)


def rollout() -> Iterator[Result]:
    """Rollouts of six hosts behind a gateway under load: forward, back, broken, cut off, paused and contested; none may fail a request."""
    yield pytest_run("rollout", "tests/rollout", timeout=2400)


def real_vllm() -> Iterator[Result]:
    """The real vLLM on a CPU behind the same playbooks, on a fleet of its own: gate, load, drain, death and benchmark."""
    yield pytest_run("real vLLM", "tests/real_vllm", timeout=1500)


# Side by side: what needs a core of this machine, and what mostly waits for hosts, each lane of these on fleets of its own.
LANES = ((lint, units, browser, package, core_units), (molecule, end_to_end), (rollout, sanity, real_vllm))
ON_FLEETS = {"molecule", "end_to_end", "rollout", "real_vllm"}
# Beside all the others it would not fit an hour on two cores: `make test-vllm`.
ON_REQUEST = ("real_vllm",)
TIERS = {function.__name__: function for lane in LANES for function in lane}


class Tally:
    """What all lanes counted; a tier is told as a whole when it has ended."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self.lock, self.raising, self.raised = threading.Lock(), threading.Lock(), False

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def tier(self, name: str) -> None:
        started, lines, results = time.monotonic(), [f"== {name}: {TIERS[name].__doc__.strip()}"], []
        try:
            results.extend(TIERS[name]())
        except Exception as error:  # Whatever breaks a tier must not pass for a tier without failures.
            results.append(Result(name, 0, 1, note=f"the tier itself failed: {error!r}"))
        if not any(result.passed or result.failed or result.note.startswith("SKIPPED: ") for result in results):
            results.append(Result(name, 0, 1, note="no test ran"))
        for result in results:
            mark = "FAILED" if result.failed else "skipped" if not result.passed else "ok"
            lines.append(f"   {mark:7} {result.name}: {result.passed} passed, {result.failed} failed, {result.skipped} skipped")
            if result.note:
                lines.append("           " + result.note.replace("\n", "\n           "))
        lines.append(f"   took {time.monotonic() - started:.0f} s")
        with self.lock:
            self.passed += sum(result.passed for result in results)
            self.failed += sum(result.failed for result in results)
            self.skipped += sum(result.skipped for result in results)
            print("\n".join(lines), flush=True)

    def lane(self, names: list[str]) -> None:
        for name in names:
            if self.failed and os.environ.get("FAIL_FAST"):
                return
            if name in ON_FLEETS:
                self.raise_fleet()
            self.tier(name)

    def raise_fleet(self) -> None:
        """Raise the rehearsal fleet once, before the lanes that need it part: they share the image that all simulated hosts are made of."""
        with self.raising:
            if not self.raised:
                run("rehearsal-fleet", [BIN / "ansible-playbook", "playbooks/rehearse.yml", "-i", "inventories/rehearsal"])
                self.raised = True


def main() -> int:
    names = sys.argv[1:] or [name for name in TIERS if name not in ON_REQUEST]
    unknown = sorted(set(names) - set(TIERS))
    if unknown:
        print(f"unknown tier {', '.join(unknown)}; known: {', '.join(TIERS)}", file=sys.stderr)
        return 2
    CHOSEN[:] = names
    LOGS.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    lanes = [threading.Thread(target=tally.lane, args=([tier.__name__ for tier in lane if tier.__name__ in names],)) for lane in LANES]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    (LOGS / "counts").write_text(f"{tally}\n")
    print(tally)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
