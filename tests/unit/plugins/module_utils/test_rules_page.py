# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/rules.md says what the rules say. To write it anew: PYTHONPATH=collections python <this file> > docs/rules.md"""

from __future__ import annotations

import io
import os

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gate

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), *([os.pardir] * 4 + ["docs", "rules.md"]))
HEAD = """# The rules of the gate

Each rule gives `pass`, `fail` or `unknown` for a host or an instance; unknown blocks like fail. `-e explain=<rule>` shows how a
verdict came about. In the inventory, `fleet_rule_settings: {<rule>: {<bound>: <value>}}` tunes a bound, and
`fleet_waivers: [{rule: <rule>, reason: "…"}]` lets a host run all the same; the reason stands in every report.
"""


def page():
    lines = [HEAD]
    for rule in gate.RULES.values():
        lines.append("## `%s`\n\n%s. %s\n" % (rule.id, rule.title, rule.why))
        lines += ["- `%s`: %s by default" % (bound, rule.bounds[bound]) for bound in sorted(rule.bounds)]
        lines.append("- Source: %s" % rule.source)
        if rule.after:
            lines.append("- Judged only where these did not fail: %s" % ", ".join("`%s`" % before for before in rule.after))
        lines.append("")
    return "\n".join(lines)


def test_the_page_is_that_of_the_rules():
    with io.open(PAGE, encoding="utf-8") as stream:
        assert stream.read().rstrip("\n") == page().rstrip("\n"), __doc__


if __name__ == "__main__":
    print(page().rstrip("\n"))
