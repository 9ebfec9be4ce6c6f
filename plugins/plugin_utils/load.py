# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A constant mix of streamed and plain chat completions, and what its clients saw.

    with Load("http://192.0.2.80:8000", "gemma-4-E2B-it", rate=20) as load:
        play("playbooks/upgrade.yml").succeeded()
    print(load.told())

    python plugins/plugin_utils/load.py http://192.0.2.80:8000 gemma-4-E2B-it --seconds 60      # JSON; exit code 1 when a client saw a failure

Requests begin on time whatever became of those before (at most `in_flight` at once; what had to wait for a place is counted as held back).
Each has a connection of its own, so that none is spared by one that was open before. Nothing is tried twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import threading
import time
import urllib.parse
from pathlib import Path

QUESTION = "What is the capital of France?"


class Seen(Exception):
    """What a client saw instead of an answer: (kind, text). Kinds: refused, cut, late, status, wrong."""


class Load:
    """The clients, in a thread of their own; a context manager."""

    def __init__(self, url, model, rate=10.0, in_flight=64, streamed=0.5, key=None, question=QUESTION, expected="paris", max_tokens=32,
                 timeout_s=120.0, authority=None):
        """:param float streamed: share of the requests that ask for a stream. :param expected: what every answer holds, in any case of letters."""
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.path = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")
        self.tls = ssl.create_default_context(cafile=authority) if parts.scheme == "https" else None
        self.rate, self.in_flight, self.streamed, self.expected, self.timeout_s = rate, in_flight, streamed, expected.lower(), timeout_s
        self.body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0}
        self.key, self.records, self.held_back = key, [], 0
        self._stop, self._thread, self._began = threading.Event(), None, None

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        """Begin no more, and wait for those that are under way."""
        self._stop.set()
        self._thread.join(self.timeout_s + 10)
        if self._thread.is_alive():
            raise TimeoutError(f"the clients did not end within {self.timeout_s + 10:g} s")

    # -- the clients -------------------------------------------------------------------------------------------------

    async def _run(self):
        self._began = time.monotonic()
        places, running, number = asyncio.Semaphore(self.in_flight), set(), 0
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, self._began + number / self.rate - time.monotonic()))
            if places.locked():
                self.held_back += 1
            await places.acquire()
            # Spread evenly: with a share of 0.5 every other one.
            stream = int((number + 1) * self.streamed) > int(number * self.streamed)
            task = asyncio.ensure_future(self._client(stream))
            running.add(task)
            task.add_done_callback(lambda task: (running.discard(task), places.release()))
            number += 1
        if running:
            await asyncio.wait(running)

    async def _client(self, stream):
        began = time.monotonic()
        record = {"at_s": began - self._began, "stream": stream, "first_s": None, "kind": "ok", "text": ""}
        self.records.append(record)
        try:
            await asyncio.wait_for(self._ask(stream, record, began), self.timeout_s)
        except Seen as seen:
            record["kind"], record["text"] = seen.args
        except asyncio.TimeoutError:
            record.update(kind="late", text=f"no end within {self.timeout_s:g} s")
        except (OSError, EOFError, ValueError) as error:
            # Nothing was answered yet, or an answer ended too early.
            record.update(kind="cut" if record["first_s"] is not None else "refused", text=f"{type(error).__name__}: {error}")
        record["whole_s"] = time.monotonic() - began

    async def _ask(self, stream, record, began):
        body = json.dumps(dict(self.body, stream=stream)).encode()
        head = [f"POST {self.path}/v1/chat/completions HTTP/1.1", f"Host: {self.host}:{self.port}", "Content-Type: application/json",
                f"Content-Length: {len(body)}", "Connection: close"] + ([f"Authorization: Bearer {self.key}"] if self.key else [])
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        try:
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            await writer.drain()
            status, headers = await self._headers(reader)
            if status != 200:
                raise Seen("status", f"{status}: {(await reader.read(300)).decode('utf-8', 'replace').strip()}")
            if "text/event-stream" in headers.get("content-type", ""):
                text = await self._stream(reader, record, began)
            else:
                text = await self._whole(reader, headers)
                record["first_s"] = time.monotonic() - began
        finally:
            writer.close()
        if self.expected not in text.lower():
            raise Seen("wrong", text[:200] or "an empty answer")

    @staticmethod
    async def _headers(reader):
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = text.split("\r\n")
        return int(lines[0].split()[1]), {name.strip().lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines[1:])}

    @staticmethod
    async def _chunks(reader):
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            data = await reader.readexactly(size + 2)
            if size == 0:
                return
            yield data[:-2]

    async def _whole(self, reader, headers):
        if "content-length" in headers:
            data = await reader.readexactly(int(headers["content-length"]))
        else:
            data = b"".join([chunk async for chunk in self._chunks(reader)])
        answer = json.loads(data)
        if "error" in answer:
            raise Seen("status", f"200 with {json.dumps(answer['error'])[:200]}")
        choice = answer["choices"][0]
        self._finished(choice)
        return choice["message"].get("content") or ""

    async def _stream(self, reader, record, began):
        text, ended, rest = [], None, b""
        async for chunk in self._chunks(reader):
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                data = event.partition(b"data:")[2].strip()
                if data == b"[DONE]":
                    if ended is None:
                        raise Seen("cut", f"[DONE] without a reason to end after {len(text)} pieces")
                    return "".join(text)
                answer = json.loads(data)
                if "error" in answer:
                    raise Seen("cut", f"after {len(text)} pieces: {json.dumps(answer['error'])[:200]}")
                for choice in answer["choices"]:
                    piece = choice["delta"].get("content")
                    if piece:
                        if record["first_s"] is None:
                            record["first_s"] = time.monotonic() - began
                        text.append(piece)
                    if choice.get("finish_reason"):
                        ended = choice
                        self._finished(choice, len(text))
        raise Seen("cut", f"the stream ended after {len(text)} pieces without [DONE]")

    @staticmethod
    def _finished(choice, pieces=None):
        if choice.get("finish_reason") not in ("stop", "length", "tool_calls"):
            raise Seen("cut", f"finish_reason {choice.get('finish_reason')!r}" + ("" if pieces is None else f" after {pieces} pieces"))

    # -- what they saw -----------------------------------------------------------------------------------------------

    def report(self):
        """Counts, failures with their words, times, and one row for each second; as of now, so also while it runs."""
        done = [record for record in list(self.records) if "whole_s" in record]
        failures = [record for record in done if record["kind"] != "ok"]
        good = [record for record in done if record["kind"] == "ok"]
        kinds, texts = {}, {}
        for record in failures:
            kinds[record["kind"]] = kinds.get(record["kind"], 0) + 1
            said = f"{record['kind']}: {record['text']}"
            texts[said] = texts.get(said, 0) + 1
        return {"requests": len(done), "streamed": sum(record["stream"] for record in done), "failed": len(failures), "kinds": kinds,
                "cut_streams": sum(record["kind"] == "cut" and record["stream"] for record in failures), "held_back": self.held_back,
                "texts": texts, "first_s": _times([record["first_s"] for record in good if record["stream"]]),
                "whole_s": _times([record["whole_s"] for record in good]), "seconds": self._series(done)}

    @staticmethod
    def _series(done):
        rows = []
        for second in range(int(max((record["at_s"] for record in done), default=-1)) + 1):
            began = [record for record in done if int(record["at_s"]) == second]
            rows.append({"second": second, "began": len(began), "failed": sum(record["kind"] != "ok" for record in began),
                         "slowest_s": round(max((record["whole_s"] for record in began), default=0.0), 3)})
        return rows

    def told(self):
        """The report for a person: failures first, with the seconds they happened in."""
        found = self.report()
        lines = [f"{found['failed']} of {found['requests']} requests failed ({found['cut_streams']} streams cut, {found['held_back']} held back)"]
        lines += [f"  {count} x {text}" for text, count in sorted(found["texts"].items(), key=lambda item: -item[1])]
        lines += [f"  second {row['second']}: {row['failed']} of {row['began']}" for row in found["seconds"] if row["failed"]]
        return "\n".join(lines)


def _times(values):
    if not values:
        return {}
    ordered = sorted(values)
    return {"median": round(statistics.median(ordered), 4), "p99": round(ordered[int(len(ordered) * 0.99)], 4), "max": round(ordered[-1], 4)}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--streamed", type=float, default=0.5)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--key-file", type=Path, help="a file with the API key; a key on the command line would be seen by everybody")
    parser.add_argument("--authority", help="certificate authority of an https URL")
    given = parser.parse_args()
    key = given.key_file.read_text(encoding="utf-8").strip() if given.key_file else None
    with Load(given.url, given.model, given.rate, given.in_flight, given.streamed, key, max_tokens=given.max_tokens,
              authority=given.authority) as load:
        time.sleep(given.seconds)
    found = load.report()
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["failed"] or not found["requests"] else 0)


if __name__ == "__main__":
    main()
