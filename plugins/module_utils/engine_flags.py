# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flag table of a vLLM version, from its own parser; catalogue/engine_flags/README.md says how to make one.

Run as a program by the image's own Python, where there is no Ansible: standard library and vllm only.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

HEAD = """\
# Real `vllm serve` command line of vLLM %s
# Source: the argument parser of an installation of it, written by plugins/module_utils/engine_flags.py
# Columns (tab separated): all spellings | kind | type | default | choices | config group
# Notes: a "bool" flag X also accepts --no-X. Underscores and dashes are interchangeable in long names.
# Nested keys may be given as --flag.sub.key value. Positional: model_tag.
# Names of tool call and reasoning parsers are validated at start-up, not by the parser.
"""


def kind(action):
    """How a flag takes its value, in the words of the table."""
    name = type(action).__name__
    if "BooleanOptional" in name:
        return "bool (has --no- form)"
    if name == "_AppendAction":
        return "append"
    if name == "LoRAParserAction":
        return "list (LoRA)"
    if action.nargs == 0:
        return "switch"
    return "value" if action.nargs is None else "value nargs=%s" % action.nargs


def type_name(function):
    """The name of what reads a value; a question mark says that the word None is understood as well."""
    if function is None:
        return ""
    inner = [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if callable(cell.cell_contents)]
    name = getattr(function, "__name__", type(function).__name__)
    if "optional" in getattr(function, "__qualname__", "") and inner:
        name = inner[0].__name__
        return "json" if name in ("loads", "parse_dataclass") else name + "?"
    return "json" if name == "parse_dataclass" else name


def default_text(value):
    """A default in one word; a whole configuration is only told to be one."""
    plain = isinstance(value, (str, int, float, bool, list, tuple, dict, type(None)))
    return " ".join(repr(value).split()) if plain else "(structured)"


def row(action, group):
    """One line of the table, without its end."""
    spellings = ", ".join(action.option_strings) or "%s (positional)" % action.dest
    choices = ",".join(str(choice) for choice in action.choices or ())
    cells = (spellings, kind(action), type_name(action.type), default_text(action.default), choices, group)
    return "\t".join(cell.replace("\t", " ") for cell in cells)


def table(parser, version):
    """The whole table of a parser's flags, group by group as the parser has them."""
    lines = []
    for group in parser._action_groups:  # argparse offers no other way to them
        for action in group._group_actions:
            if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
                lines.append(row(action, group.title or "options"))
    return HEAD % version + "\n".join(lines) + "\n"


def main():
    import importlib.metadata

    # vLLM logs to standard output, where only the table belongs.
    with contextlib.redirect_stdout(sys.stderr):
        from vllm.entrypoints.cli import serve
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = serve.cmd_init()[0].subparser_init(FlexibleArgumentParser(prog="vllm").add_subparsers())
    sys.stdout.write(table(parser, importlib.metadata.version("vllm").partition("+")[0]))


if __name__ == "__main__":
    main()
