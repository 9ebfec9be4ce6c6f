# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smoke checks that deployers do by hand, as questions and judgements. Pure; the client is the endpoint gate's."""

from __future__ import annotations

import re

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint
from ansible_collections.vllm_ascend.fleet.plugins.module_utils.rule import finding

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
# Short answers must not drown in thinking; templates that know no such switch ignore it.
PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}
CHINESE = re.compile("[\u4e00-\u9fff]")
REMEDY = "check that the image carries the patch set and that the weights are complete; prove it with restart.yml"


def _chat(question, **more):
    return dict({"messages": [{"role": "user", "content": question}], "temperature": 0, "seed": 0}, **more)


# Rule, what is asked, how often, expected, regular expression that a model with an expected answer must match, whose document asks it.
CHECKS = (
    ("smoke.chat", CHAT, _chat("介绍下{served_model_name}大模型", temperature=1.0, max_tokens=512), 1, "readable text", None,
     "Gemma 4 delivery, text generation"),
    ("smoke.consistency", CHAT, _chat("What is the capital of France? Answer in one word.", max_tokens=16), 3,
     "the same answer in 3 rounds at temperature 0", None, "Gemma-3-270M page, sections 4 and 6.1"),
    ("smoke.arithmetic", CHAT, _chat("What is 17 + 25? Answer with only the number.", max_tokens=32, **PLAIN), 1, "42", r"\b42\b",
     "Gemma-3-270M page, section 6.1"),
    ("smoke.fact", CHAT, _chat("What is the capital of Japan? Answer with one word.", max_tokens=32, **PLAIN), 1, "Tokyo", r"tokyo",
     "Gemma-3-270M page, section 6.1"),
    ("smoke.chinese", CHAT, _chat("中国的首都是哪里?请用中文回答。", max_tokens=64, **PLAIN), 1, "北京, in Chinese", "北京",
     "Gemma-3-270M page, section 6.1"),
    ("smoke.completion", COMPLETION, {"prompt": "你好", "max_tokens": 64, "top_p": 0.95, "top_k": 50, "temperature": 0.6}, 1, "readable text", None,
     "Ascend Plugin guide, step three"),
)
REASONING = ("smoke.reasoning", CHAT, _chat("Which is larger, 9.11 or 9.9? Think first.", max_tokens=512, chat_template_kwargs={"enable_thinking": True}), 1,
             "no marks of reasoning within the answer itself", None, "the instance declares a reasoning parser")


def checks(instance):
    """The checks of one instance: [(rule, path, body, rounds, expected, pattern, source)]."""
    return CHECKS + ((REASONING,) if endpoint.declares(instance, "--reasoning-parser") else ())


def asked(body, instance):
    """A body with the model's name where it belongs, and the question as one line."""
    name = instance["served_model_name"]
    filled = dict(body, model=name, stream=True)
    if "messages" in filled:
        filled["messages"] = [dict(message, content=message["content"].replace("{served_model_name}", name)) for message in filled["messages"]]
    return filled, filled["messages"][-1]["content"] if "messages" in filled else filled["prompt"]


def judge(rule, pattern, outcomes, instance):
    """(status, found) of the answers to one check.

    What an answer says is judged for a model of which the catalogue expects a right answer; a model that is too small for that, or babbles by
    nature, must answer and be of one mind.
    """
    for outcome in outcomes:
        status, found = endpoint.judge_completion(outcome, instance["served_model_name"])
        if status != "pass":
            return status, found
    texts = [outcome["stream"].text for outcome in outcomes]
    if rule == "smoke.reasoning":
        status, found = endpoint.judge_reasoning([outcome["stream"].content for outcome in outcomes])
        if status != "pass":
            return status, found
        thought = len(outcomes[0]["stream"].reasoning)
        return "pass", "%d characters of reasoning in a field of their own" % thought if thought else "no reasoning, and no marks of it"
    strict = instance["sanity"] == "full" and bool(instance["expected_answer"])
    # 512 tokens of a small model may well go round in circles; that is no sign of a broken engine.
    sanity = instance["sanity"] if strict and rule not in ("smoke.chat", "smoke.completion") else "text"
    status, found = endpoint.judge_text(texts, sanity, pattern if strict else None)
    if status == "pass" and strict and rule == "smoke.chinese" and not CHINESE.search(texts[0]):
        return "fail", "no Chinese: %s" % found
    if status == "pass" and pattern and not strict:
        right = bool(re.search(pattern, texts[0], re.I))
        found += "" if right else " (not as expected; not judged, the model has no expected_answer)"
    return status, found


def evidence(rule, question, outcome):
    """One answer as it is kept."""
    stream = outcome["stream"]
    return {"check": rule, "asked": question, "status": outcome["status"], "text": stream.content, "reasoning": stream.reasoning,
            "error": outcome["error"] or stream.error, "first_token_s": _rounded(outcome["first_token_s"]), "elapsed_s": _rounded(outcome["elapsed_s"])}


def _rounded(seconds):
    return None if seconds is None else round(seconds, 3)


def run(instance, probes, redact=lambda text: text):
    """Ask everything: ([finding], [evidence]).

    :param probes: complete(path, body) -> see endpoint.judge_completion; tool_call() -> (HTTP status or None, text).
    :param redact: takes secrets out of what is kept.
    """
    findings, answers = [], []
    for rule, path, body, rounds, expected, pattern, source in checks(instance):
        filled, question = asked(body, instance)
        outcomes = [probes.complete(path, filled) for dummy in range(rounds)]
        status, found = judge(rule, pattern, outcomes, instance)
        answers += [evidence(rule, question, outcome) for outcome in outcomes]
        findings.append(finding(rule, status, redact(found), expected, source, "" if status == "pass" else REMEDY, instance=instance["name"]))
    if endpoint.declares(instance, "--enable-auto-tool-choice") and instance["sanity"] == "full":
        status, text = probes.tool_call()
        verdict, found = endpoint.judge_tool_call(status, text)
        expected, source, remedy = endpoint.RULES["endpoint.tool_call"]
        findings.append(finding("smoke.tool_call", verdict, redact(found), expected, source, "" if verdict == "pass" else remedy.format(
            unit=instance["unit"]), instance=instance["name"]))
        answers.append({"check": "smoke.tool_call", "asked": endpoint.TOOL_QUESTION["messages"][0]["content"], "status": status, "text": text or "",
                        "reasoning": "", "error": None if status else text, "first_token_s": None, "elapsed_s": 0.0})
    for answer in answers:
        for key in ("text", "reasoning", "error"):
            answer[key] = redact(answer[key]) if answer[key] else answer[key]
    return findings, answers
