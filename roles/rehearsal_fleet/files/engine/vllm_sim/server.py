# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP surface of vLLM 0.18.0."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import ssl
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import VERSION, answers, faults, settings


class Refused(Exception):
    """A request that is answered with an error object."""

    def __init__(self, status, message, kind="BadRequestError", param=None):
        super().__init__(message)
        self.status, self.body = status, {"error": {"message": message, "type": kind, "param": param, "code": status}}


class State:
    """What the handlers share. `phase` is 'serving', 'draining', 'aborting' or 'dead'."""

    def __init__(self, args, names, max_model_len, metrics, capacity, nonsense):
        self.args, self.names, self.max_model_len = args, names, max_model_len
        self.metrics, self.capacity, self.nonsense = metrics, capacity, nonsense
        self.phase = "serving"
        keys = args.api_key or ([os.environ["VLLM_API_KEY"]] if os.environ.get("VLLM_API_KEY") else [])
        self.keys = [hashlib.sha256(key.encode()).digest() for key in keys]

    @property
    def lever_name(self):
        """The name that a lever for a single model carries."""
        return self.names[0]

    def shown_names(self):
        """Names as /v1/models shows them."""
        wrong = faults.lever("wrong_model_answers", self.lever_name)
        return self.names if wrong is None else [wrong or "some-other-model"]


def _json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text_of(content):
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "uvicorn", ""
    disable_nagle_algorithm = True
    timeout = float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5"))

    @property
    def state(self):
        """The server's state."""
        return self.server.state

    def version_string(self):
        return self.server_version

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        return

    def log_request(self, code="-", size="-"):
        if not self.state.args.disable_uvicorn_access_log:
            host, port = self.client_address[:2]
            facts = (os.getpid(), host, port, self.requestline, int(code), self.responses[int(code)][0])
            print('(APIServer pid=%d) INFO:     %s:%s - "%s" %d %s' % facts, flush=True)

    # -- writing -----------------------------------------------------------------------------------------------------

    def _send(self, status, body=b"", kind="application/json"):
        data = body if isinstance(body, bytes) else _json(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _event(self, value):
        text = value if isinstance(value, str) else _json(value)
        self._chunk(("data: %s\n\n" % text).encode())

    # -- routes ------------------------------------------------------------------------------------------------------

    def do_GET(self):
        """GET."""
        self._route({"/health": self._health, "/ping": self._health, "/version": lambda: self._send(200, {"version": VERSION}),
                     "/v1/models": self._models, "/metrics": self._metrics, "/load": lambda: self._send(200, {"server_load": self._load()})})

    def do_POST(self):
        """POST."""
        self._route({"/ping": self._health, "/v1/chat/completions": lambda: self._generate(True),
                     "/v1/completions": lambda: self._generate(False), "/tokenize": self._tokenize})

    def _route(self, routes):
        path = self.path.split("?")[0]
        try:
            length = int(self.headers.get("Content-Length") or 0)
            self.body = self.rfile.read(length)
            if self.state.keys and path.startswith("/v1") and not self._authorised():
                self._send(401, {"error": "Unauthorized"})
            elif path in routes:
                routes[path]()
            elif path in ("/health", "/ping", "/version", "/v1/models", "/metrics", "/load", "/v1/chat/completions", "/v1/completions",
                          "/tokenize"):
                self._send(405, {"detail": "Method Not Allowed"})
            else:
                self._send(404, {"detail": "Not Found"})
        except Refused as refusal:
            self._send(refusal.status, refusal.body)
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            self.close_connection = True

    def _authorised(self):
        scheme, _space, token = (self.headers.get("Authorization") or "").partition(" ")
        given = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        # A list, so that every key is compared and the time tells nothing.
        return scheme.lower() == "bearer" and any([secrets.compare_digest(given, key) for key in self.state.keys])  # pylint: disable=use-a-generator

    def _health(self):
        self._send(503 if self.state.phase == "dead" else 200)

    def _load(self):
        return self.state.metrics.unfinished() if self.state.args.enable_server_load_tracking else 0

    def _metrics(self):
        self._send(200, self.state.metrics.text(self.state.capacity).encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _models(self):
        card = {"object": "model", "created": int(time.time()), "owned_by": "vllm", "root": self.state.args.model, "parent": None,
                "max_model_len": self.state.max_model_len, "permission": []}
        self._send(200, {"object": "list", "data": [dict(card, id=name) for name in self.state.shown_names()]})

    def _request(self):
        try:
            request = json.loads(self.body or b"null")
        except ValueError as error:
            raise Refused(400, "[{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error', 'ctx': {'error': '%s'}}]" % error)
        if not isinstance(request, dict):
            raise Refused(400, "[{'type': 'model_attributes_type', 'loc': ('body',), 'msg': 'Input should be a valid dictionary'}]")
        return request

    def _check_model(self, request):
        name = request.get("model")
        if name and name not in self.state.shown_names():
            raise Refused(404, "The model `%s` does not exist." % name, "NotFoundError", "model")

    def _tokenize(self):
        request = self._request()
        self._check_model(request)
        text = request.get("prompt") or " ".join(_text_of(one.get("content")) for one in request.get("messages", []))
        tokens = [zlib.crc32(piece.encode()) % 262144 for piece in answers.pieces(text)]
        self._send(200, {"count": len(tokens), "max_model_len": self.state.max_model_len, "tokens": tokens, "token_strs": None})

    # -- generation --------------------------------------------------------------------------------------------------

    def _prompt(self, request, chat):
        """(whole prompt as tokens, text that decides the answer)."""
        if not chat:
            prompt = request.get("prompt")
            if prompt in (None, "", []):
                raise Refused(400, "Either prompt or prompt_embeds must be provided and non-empty.")
            if isinstance(prompt, list) and all(isinstance(one, int) for one in prompt):
                return prompt, ""
            text = prompt[0] if isinstance(prompt, list) else prompt
            if not isinstance(text, str):
                raise Refused(400, "prompt must be a string, or a list of token ids.")
            return answers.pieces(text), text
        messages = request.get("messages")
        if not isinstance(messages, list) or not all(isinstance(one, dict) and one.get("role") for one in messages):
            raise Refused(400, "[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
        whole = "\n".join("%s: %s" % (one["role"], _text_of(one.get("content"))) for one in messages)
        asked = [_text_of(one.get("content")) for one in messages if one["role"] == "user"]
        return answers.pieces(whole), asked[-1] if asked else whole

    def _limit(self, request, prompt, chat):
        room, length = self.state.max_model_len, len(prompt)
        wanted = request.get("max_completion_tokens") if chat else None
        wanted = request.get("max_tokens") if wanted is None else wanted
        if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
            raise Refused(400, "max_tokens must be at least 1, got %s." % wanted, param="max_tokens")
        if length >= room:
            raise Refused(400, "This model's maximum context length is %d tokens. However, your request has %d input tokens. "
                               "Please reduce the length of the input messages." % (room, length), param="input_tokens")
        if wanted is not None and length + wanted > room:
            raise Refused(400, "This model's maximum context length is %d tokens. However, you requested %d output tokens and your prompt "
                               "contains %d input tokens, for a total of %d tokens (%d + %d = %d > %d). Please reduce the length of the input "
                               "prompt or the number of requested output tokens."
                               % (room, wanted, length, length + wanted, length, wanted, length + wanted, room), param="max_tokens")
        return wanted if wanted is not None else room - length if chat else 16

    def _plan(self, request, chat, asked, limit):
        """(pieces of the answer, finish reason, tool call or None)."""
        call = None
        if chat and request.get("tools"):
            choice = request.get("tool_choice", "auto")
            if choice == "auto" and not self.state.args.enable_auto_tool_choice:
                raise Refused(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
            call = answers.tool_call(request["tools"], choice, asked)
        if call is not None:
            return answers.pieces(call["arguments"])[:limit], "tool_calls", call
        nonsense = faults.lever("engine_nonsense", self.state.lever_name)
        if nonsense is None and self.state.nonsense:
            nonsense = answers.NONSENSE
        if nonsense == "empty":
            return [], "stop", None
        if nonsense is not None:
            return [" " + (nonsense.strip() or answers.NONSENSE.strip())] * min(limit, 2048), "length", None
        pieces = answers.pieces(answers.answer(asked))
        if request.get("ignore_eos"):
            filler = answers.pieces(answers.FILLER)
            pieces = (pieces + filler * (limit // len(filler) + 1))[:limit]
            return pieces, "length", None
        return pieces[:limit], "stop" if len(pieces) <= limit else "length", None

    def _hang(self):
        while self.state.phase == "serving":
            time.sleep(0.05)
        self.close_connection = True

    def _generate(self, chat):
        if self.state.phase == "dead":
            raise Refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", "InternalServerError")
        request, name = self._request(), self.state.lever_name
        self._check_model(request)
        prompt, asked = self._prompt(request, chat)
        limit = self._limit(request, prompt, chat)
        pieces, reason, call = self._plan(request, chat, asked, limit)
        if faults.lever("health_only", name) is not None:
            return self._hang()
        error = faults.lever("engine_error_body", name)
        if error is not None:
            return self._send(200, {"error": {"message": error or "Internal server error", "type": "InternalServerError", "param": None,
                                              "code": 500}})
        if faults.lever("engine_hangs_after_headers", name) is not None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if request.get("stream") else "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self._hang()
        delay = faults.seconds("slow_tokens_s", name, settings.TOKEN_S)
        reply = Reply(self, request, chat, prompt, reason, call)
        reply.run(pieces, delay)
        return None


class Reply:
    """One generation, streamed or whole."""

    def __init__(self, handler, request, chat, prompt, reason, call):
        self.handler, self.request, self.chat, self.prompt, self.reason, self.call = handler, request, chat, prompt, reason, call
        self.stream = bool(request.get("stream"))
        self.head = {"id": ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex, "created": int(time.time()),
                     "model": request.get("model") or handler.state.shown_names()[0]}
        options = request.get("stream_options") or {}
        self.usage_wanted = bool(options.get("include_usage")) or handler.state.args.enable_force_include_usage

    def run(self, pieces, delay):
        """Work through the pieces, `delay` seconds each, and answer."""
        state, metrics = self.handler.state, self.handler.state.metrics
        start = time.monotonic()
        accepted = state.phase == "serving"
        engine = metrics.begin(self.prompt, lambda: accepted and state.phase in ("serving", "draining"))
        done, sent, reason, last = [], 0, "abort", start
        try:
            if self.stream:
                self._open()
            for piece in pieces:
                if not accepted or self._waits(delay):
                    break
                now = time.monotonic()
                metrics.token(engine, "vllm:inter_token_latency_seconds" if done else "vllm:time_to_first_token_seconds", now - last)
                last = now
                done.append(piece)
                if self.stream:
                    if not sent:
                        self._role()
                    self._delta(piece if sent else piece.lstrip(), sent == 0)
                    sent += 1
            else:
                reason = self.reason if accepted else "abort"
            if state.phase == "dead":
                raise Refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", "InternalServerError")
            usage = {"prompt_tokens": len(self.prompt), "total_tokens": len(self.prompt) + len(done), "completion_tokens": len(done),
                     "prompt_tokens_details": None}
            if self.stream:
                self._close(reason, usage)
            else:
                self._whole("".join(done).lstrip(), reason, usage)
        except Refused as refusal:
            reason = "error"
            if not self.stream:
                raise
            self.handler._event(refusal.body)
            self.handler._event("[DONE]")
            self.handler._chunk(b"")
        finally:
            kind = "stop" if reason == "tool_calls" else reason
            metrics.end(engine, len(self.prompt) + len(done), kind, time.monotonic() - start)

    def _waits(self, delay):
        """Wait for the next token; True when the engine gave up meanwhile. A draining engine finishes what it began."""
        state, until = self.handler.state, time.monotonic() + delay
        while state.phase in ("serving", "draining"):
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.05))
        return True

    def _choice(self, **content):
        return dict({"index": 0}, logprobs=None, **content)

    def _open(self):
        handler = self.handler
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()

    def _role(self):
        """It comes with the first token, not with the headers."""
        if self.chat:
            self._chunk_of(self._choice(delta={"role": "assistant", "content": ""}, finish_reason=None))
            if self.handler.state.args.reasoning_parser and (self.request.get("chat_template_kwargs") or {}).get("enable_thinking"):
                self._chunk_of(self._choice(delta={"reasoning": "The user asks something that follows a fixed rule."}, finish_reason=None))

    def _chunk_of(self, choice, usage=None):
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        event = dict(self.head, object=kind, choices=[choice] if choice else [])
        if usage:
            event["usage"] = usage
        self.handler._event(event)

    def _delta(self, text, first):
        if not self.chat:
            self._chunk_of(self._choice(text=text, finish_reason=None, stop_reason=None))
        elif self.call is None:
            self._chunk_of(self._choice(delta={"content": text}, finish_reason=None))
        else:
            call = {"index": 0, "function": {"arguments": text}}
            if first:
                call.update(id="chatcmpl-tool-" + uuid.uuid4().hex[:16], type="function")
                call["function"]["name"] = self.call["name"]
            self._chunk_of(self._choice(delta={"tool_calls": [call]}, finish_reason=None))

    def _close(self, reason, usage):
        content = {"delta": {"content": ""}} if self.chat else {"text": ""}
        self._chunk_of(self._choice(finish_reason=reason, stop_reason=None, **content))
        if self.usage_wanted:
            self._chunk_of(None, usage)
        self.handler._event("[DONE]")
        self.handler._chunk(b"")

    def _whole(self, text, reason, usage):
        if self.chat:
            message = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None, "function_call": None,
                       "tool_calls": [], "reasoning": None}
            if self.call is not None:
                message.update(content=None, tool_calls=[{"id": "chatcmpl-tool-" + uuid.uuid4().hex[:16], "type": "function",
                                                          "function": dict(self.call)}])
            choice = self._choice(message=message, finish_reason=reason, stop_reason=None, token_ids=None)
        else:
            choice = self._choice(text=text, finish_reason=reason, stop_reason=None, token_ids=None)
        self.handler._send(200, dict(self.head, object="chat.completion" if self.chat else "text_completion", choices=[choice], usage=usage,
                                     service_tier=None, system_fingerprint=None))


class Server(ThreadingHTTPServer):
    """The server on a socket that was bound before; it listens from here on."""

    daemon_threads = True

    def __init__(self, bound, state):
        super().__init__(bound.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.state = bound, state
        self.socket.listen(2048)
        if state.args.ssl_certfile:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(state.args.ssl_certfile, state.args.ssl_keyfile)
            self.socket = context.wrap_socket(bound, server_side=True)

    def run(self):
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


def bind(host, port):
    """Reserve the port as vLLM does: shared, and not listening yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound
