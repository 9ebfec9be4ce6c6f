# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smoke checks, with answers that are made up."""

from __future__ import annotations

import pytest

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import endpoint, smoke

INSTANCE = endpoint.complete_instance({"name": "one", "port": 8000, "served_model_name": "gemma-4-E2B-it", "expected_answer": "paris"}, {})
SMALL = dict(INSTANCE, expected_answer=None)
ANSWERS = {"smoke.chat": "Gemma is a model.", "smoke.consistency": "Paris", "smoke.arithmetic": "42", "smoke.fact": "Tokyo", "smoke.chinese": "北京",
           "smoke.completion": "你好!", "smoke.reasoning": "9.9"}


class Probes:
    """Answers by rule; a list is an answer for each round."""

    def __init__(self, instance, reasoning="", **answers):
        self.bodies, self.rules, self.reasoning = [], {}, reasoning
        for rule, dummy, body, dummy, dummy, dummy, dummy in smoke.checks(instance):
            self.rules[smoke.asked(body, instance)[1]] = rule
        self.answers = dict(ANSWERS, **dict(("smoke." + name, answer) for name, answer in answers.items()))

    def complete(self, path, body):
        self.bodies.append((path, body))
        rule = self.rules[body["messages"][-1]["content"] if "messages" in body else body["prompt"]]
        answer = self.answers[rule]
        text = answer.pop(0) if isinstance(answer, list) else answer
        stream = endpoint.Stream()
        stream.text, stream.content, stream.reasoning = self.reasoning + text, text, self.reasoning
        stream.model, stream.finish_reason, stream.done = "gemma-4-E2B-it", "stop", True
        error = "HTTP 500" if text == "broken" else None
        return {"status": None if error else 200, "error": error, "stream": stream, "first_token_s": 0.1234567, "elapsed_s": 0.5}

    def tool_call(self):
        return 200, '{"choices": [{"message": {"tool_calls": [{"function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}]}}]}'


def run(instance=None, **answers):
    instance = instance or INSTANCE
    probes = Probes(instance, **answers)
    findings, kept = smoke.run(instance, probes, lambda text: text.replace("planted", "********"))
    return dict((item["rule"], item) for item in findings), kept, probes


def test_right_answers_pass_and_every_answer_is_kept():
    findings, kept, probes = run()
    assert set(item["status"] for item in findings.values()) == {"pass"} and len(kept) == len(probes.bodies) == 8
    assert kept[0] == {"check": "smoke.chat", "asked": "介绍下gemma-4-E2B-it大模型", "status": 200, "text": "Gemma is a model.", "reasoning": "",
                       "error": None, "first_token_s": 0.123, "elapsed_s": 0.5}
    assert all(body["stream"] and body["model"] == "gemma-4-E2B-it" for dummy, body in probes.bodies)
    assert "smoke.reasoning" not in findings and "smoke.tool_call" not in findings, "only what is declared"


def test_the_questions_are_those_of_the_seeds():
    bodies = run()[2].bodies
    capital = [body for dummy, body in bodies if "France" in str(body)]
    assert len(capital) == 3 and all(body["temperature"] == 0 and body["max_tokens"] == 16 for body in capital)
    (plain,) = [body for path, body in bodies if path == "/v1/completions"]
    assert plain["prompt"] == "你好" and (plain["top_p"], plain["top_k"], plain["temperature"]) == (0.95, 50, 0.6)


@pytest.mark.parametrize("name, answer, words", [
    ("consistency", ["Paris", "Paris", "Lyon"], "the rounds differ: 'Paris' and 'Lyon'"), ("arithmetic", "43", "a wrong answer: '43'"),
    ("arithmetic", "142", "a wrong answer"), ("fact", "Kyoto", "a wrong answer: 'Kyoto'"), ("chinese", "Beijing", "a wrong answer: 'Beijing'"),
    ("chat", " ", "an empty answer"), ("completion", "\ufffd\ufffd\ufffd", "no text"), ("fact", "broken", "HTTP 500")])
def test_what_is_wrong_is_told(name, answer, words):
    findings, kept, dummy = run(**{name: answer})
    item = findings["smoke." + name]
    assert item["status"] == "fail" and words in item["found"] and item["remedy"] and sum(f["status"] != "pass" for f in findings.values()) == 1


def test_the_content_of_a_small_models_answers_is_not_judged():
    findings = run(SMALL, arithmetic="43 43 43 43 43 43 43 43 43", fact="Kyoto", chinese="Beijing")[0]
    assert set(item["status"] for item in findings.values()) == {"pass"}
    assert "not judged, the model has no expected_answer" in findings["smoke.arithmetic"]["found"]
    assert run(SMALL, consistency=["a", "b", "a"])[0]["smoke.consistency"]["status"] == "fail", "but it must be of one mind"
    assert run(dict(INSTANCE, sanity="text"), fact="Kyoto")[0]["smoke.fact"]["status"] == "pass"


def test_declared_parsers_are_asked_for():
    instance = dict(INSTANCE, arguments=["--reasoning-parser", "gemma4", "--enable-auto-tool-choice"])
    findings, kept, dummy = run(instance, reasoning="Let me see.")
    assert findings["smoke.reasoning"]["found"] == "11 characters of reasoning in a field of their own" and findings["smoke.tool_call"]["status"] == "pass"
    assert kept[-1]["check"] == "smoke.tool_call" and "get_weather" in kept[-1]["text"] and kept[-2]["reasoning"] == "Let me see."
    assert "no reasoning" in run(instance)[0]["smoke.reasoning"]["found"]
    leak = run(instance, reasoning="", **{"reasoning_": ""})[2]
    leak.answers["smoke.reasoning"] = "<think>9.9"
    assert smoke.run(instance, leak)[0][-2]["status"] == "fail"


def test_secrets_are_hidden_in_what_is_kept():
    findings, kept, dummy = run(chat="the key is planted", fact="planted")
    assert "planted" not in str(kept) + str(findings)
