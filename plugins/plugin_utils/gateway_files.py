# Copyright: (c) 2026, The vllm_ascend.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a gateway, made from what stands behind it. Controller only."""

from __future__ import annotations

import json
import os

import jinja2

from ansible_collections.vllm_ascend.fleet.plugins.module_utils import gateway

TEMPLATES = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "gateway", "templates")


def quoted(text):
    """A text within HAProxy's double quotes."""
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def question(model):
    """The body of the health check, within HAProxy's single quotes."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
    return json.dumps(asked, ensure_ascii=True, separators=(",", ":")).replace("'", "\\u0027")


def render(servers, ports, chosen, clients, api_key=None, certificate=None):
    """Make the files of the gateways.

    :param dict servers: of gateway.servers. :param dict ports: of gateway.ports. :param dict chosen: of gateway.settings. :param dict clients: {name: key}.
    :param api_key: of the instances, or None. :param certificate: text of certificate and key, or None for plain HTTP.
    :returns: {name: text}; secrets are in them.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True, autoescape=False)
    environment.filters["quoted"] = quoted
    models = [{"slug": gateway.slug(model), "port": ports[model], "servers": found, "key": api_key, "question": question(model)}
              for model, found in sorted(servers.items())]
    text = environment.get_template("haproxy.cfg.j2").render(
        models=models, directory=gateway.DIRECTORY, socket=gateway.SOCKET, clients=bool(clients), certificate=bool(certificate),
        max_connections=chosen["max_connections"], idle_timeout_s=chosen["idle_timeout_s"], check_interval_ms=int(1000 * chosen["check_interval_s"]))
    files = {"haproxy.cfg": text}
    for name, content in (("clients.map", gateway.client_map(clients) if clients else None), ("certificate.pem", certificate)):
        if content:
            files[name] = content
    return files
