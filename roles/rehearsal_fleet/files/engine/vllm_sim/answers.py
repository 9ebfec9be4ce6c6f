# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deterministic answers: the same prompt gives the same text, and simple questions get the right one."""

from __future__ import annotations

import json
import re

CAPITALS = {"france": "Paris", "germany": "Berlin", "italy": "Rome", "spain": "Madrid", "china": "Beijing", "japan": "Tokyo",
            "portugal": "Lisbon", "austria": "Vienna", "england": "London", "russia": "Moscow", "india": "New Delhi"}
CAPITALS_ZH = {"法国": "巴黎", "德国": "柏林", "中国": "北京", "日本": "东京", "英国": "伦敦", "意大利": "罗马"}
WORDS = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "加": "+", "减": "-", "乘": "*", "乘以": "*", "x": "*", "×": "*"}
CHINESE = re.compile("[\u4e00-\u9fff]")
SUM = re.compile(r"(-?\d+)\s*([-+*×x]|plus|minus|times|multiplied by|加|减|乘以|乘)\s*(-?\d+)", re.I)
ECHO = re.compile(r"(?:repeat|say|reply with|respond with|answer with)(?: exactly| only| just| the words?| the text| after me)*\s*[:\"'\u201c][\s:\"'\u201c]*"
                  r"([^\"'\u201d\n]+)", re.I)
FILLER = " The reply continues with one more plain sentence about the subject that was asked."
NONSENSE = " the"


def pieces(text):
    """Split text into what counts as tokens here: words with their leading space, single signs. Joined they give the text."""
    return re.findall(r"\s*(?:[A-Za-z]+|\d{1,3}|[^\sA-Za-z\d])|\s+$", text, re.S)


def answer(prompt):
    """The text for a prompt."""
    echo = ECHO.search(prompt)
    if echo:
        return echo.group(1).strip()
    found = SUM.findall(prompt)
    if found:
        left, sign, right = found[-1]
        sign = WORDS.get(sign.lower(), sign)
        left, right = int(left), int(right)
        result = left + right if sign == "+" else left - right if sign == "-" else left * right
        if re.search(r"\bonly\b|just the number|只", prompt, re.I):
            return str(result)
        return "%d %s %d = %d" % (left, sign, right, result)
    for country, city in CAPITALS_ZH.items():
        if country in prompt and "首都" in prompt:
            return "%s的首都是%s。" % (country, city)
    capital = re.findall(r"capital (?:city )?of (\w+)", prompt, re.I)
    if capital and capital[-1].lower() in CAPITALS:
        return "The capital of %s is %s." % (capital[-1].capitalize(), CAPITALS[capital[-1].lower()])
    if CHINESE.search(prompt):
        return "好的。这是一个演练用的引擎,它按照固定的规则回答问题,内容简短而且每次都相同。"
    subject = " ".join(re.findall(r"\w+", prompt)[-8:]) or "nothing in particular"
    return "Here is a short answer about %s: it is a well known subject, and this reply is the same each time it is asked." % subject


def tool_call(tools, choice, prompt):
    """The call that a prompt asks for, as {name, arguments as JSON text}, or None. tools and choice as in the request."""
    functions = [tool.get("function", {}) for tool in tools or []]
    if choice == "none" or not functions:
        return None
    chosen = None
    if isinstance(choice, dict):
        chosen = next((one for one in functions if one.get("name") == choice.get("function", {}).get("name")), None)
    else:
        words = set(re.findall(r"[a-z]{3,}", prompt.lower())) - {"get", "set", "the", "and", "for", "what", "with"}
        chosen = next((one for one in functions if words & set(re.findall(r"[a-z]{3,}", one.get("name", "").lower()))), None)
        if chosen is None and choice == "required":
            chosen = functions[0]
    if chosen is None:
        return None
    names = re.findall(r"(?:in|for|of|at|to) ([A-Z]\w+)", prompt) + re.findall(r"\b([A-Z]\w+)\b", prompt)[1:] + ["Paris"]
    numbers = re.findall(r"-?\d+", prompt) + ["1"]
    arguments = {}
    schema = chosen.get("parameters") or {}
    for name, kind in (schema.get("properties") or {}).items():
        if name not in schema.get("required", []):
            continue
        if kind.get("enum"):
            arguments[name] = kind["enum"][0]
        elif kind.get("type") in ("integer", "number"):
            arguments[name] = int(numbers[0])
        elif kind.get("type") == "boolean":
            arguments[name] = True
        elif kind.get("type") == "array":
            arguments[name] = []
        elif kind.get("type") == "object":
            arguments[name] = {}
        else:
            arguments[name] = names[0]
    return {"name": chosen.get("name"), "arguments": json.dumps(arguments, ensure_ascii=False)}
