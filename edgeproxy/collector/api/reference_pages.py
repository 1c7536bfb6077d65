"""The API reference in a browser: an index with a search, and for each tag a page with forms to try its requests."""

import base64
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from edgeproxy.collector.api.reference import HOST, Operation, Reference, Schema, Section

TEMPLATES = Environment(
    loader=PackageLoader("edgeproxy.collector.api"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
TEMPLATES.filters["prose"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escape(text)))
"""Texts mark names by backticks, as in the description."""
STYLE = (
    ":root{color-scheme:light dark;background:light-dark(#fff,#16181d);color:light-dark(#1a1c20,#e7eaf0)}"
    "a{color:light-dark(#0645ad,#9ec1ff)}body{background:inherit;margin:0 auto;max-width:60rem;padding:1rem}"
    "body{font:16px/1.5 system-ui,sans-serif}"
    "code,pre,textarea{font:14px/1.4 ui-monospace,monospace}pre{overflow-x:auto;padding:.6rem;border:1px solid #8886}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #8886;padding:.25rem .5rem}"
    "td,th{text-align:left;vertical-align:top}h3{margin-top:2.5rem}nav ul{columns:12rem 3;padding-left:1rem}"
    "body{overflow-wrap:anywhere}[hidden]{display:none}summary{padding:.25rem 0}label{display:block;margin:.5rem 0}"
    "input,textarea{box-sizing:border-box;display:block;font-size:1rem;padding:.4rem;width:100%}"
    "button{font:inherit;padding:.4rem .8rem}"
    "@media (max-width:40rem){thead{display:none}table,tbody,tr,td{display:block}td{border:0;padding:0}"
    "tr{border-bottom:1px solid #8886;padding:.5rem 0}}"
)
SHOWN_MAX = 50_000
"""The characters of an answer that are displayed, at most. A list may have megabytes."""
SCRIPT = (
    f'const host = "{HOST}", shownMax = {SHOWN_MAX};'
    """
for (const code of document.querySelectorAll("summary + pre")) {
  code.textContent = code.textContent.replaceAll(host, location.origin);
}
const tokens = document.querySelectorAll("[data-token]");
for (const token of tokens) {
  token.addEventListener("input", () => tokens.forEach((one) => { one.value = token.value; }));
}
for (const form of document.querySelectorAll("form[data-path]")) {
  form.closest("details").hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const output = form.querySelector("pre"), query = new URLSearchParams(), headers = {};
    let path = form.dataset.path, body;
    for (const { dataset, value } of form.querySelectorAll("[data-in]")) {
      if (dataset.in === "path") path = path.replace(`{${dataset.name}}`, encodeURIComponent(value));
      else if (!value) continue;
      else if (dataset.in === "query") query.append(dataset.name, value);
      else if (dataset.in === "header") headers[dataset.name] = value;
      else { body = value; headers["Content-Type"] = "application/json"; }
    }
    const token = tokens[0].value.trim();
    if (token) headers.Authorization = `Bearer ${token}`;
    output.hidden = false;
    output.textContent = "…";
    const search = String(query) && `?${query}`;
    try {
      const options = { method: form.dataset.method, headers, body, credentials: "omit", redirect: "error" };
      const answer = await fetch(path + search, options);
      const text = await answer.text();
      let shown = text;
      try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { }
      output.textContent = `${answer.status} ${answer.statusText}\\n\\n${shown.slice(0, shownMax)}`;
      if (shown.length > shownMax) {
        const [most, all] = [shownMax, shown.length].map((count) => count.toLocaleString("en"));
        output.textContent += `\\n\\nThe answer has ${all} characters. The first ${most} are shown.`;
      }
    } catch (error) { output.textContent = String(error); }
  });
}
"""
)
"""Puts the address of this collector into the snippets, and sends the requests to try.

The browser knows the address better than the collector, which may stand behind a proxy. The token stays in its fields,
which are equal. The answer is displayed as text.
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""The Content-Security-Policy of the pages: only their own style and script, and requests to this collector."""


class ReferencePages:
    """The pages of a description. They load no other files."""

    def __init__(self, document: Schema) -> None:
        self._reference = Reference(document)
        self._pages = {
            section.name: self._render("reference_section.html", section=section)
            for section in self._reference.sections
        }

    def render_index(self, query: str) -> bytes:
        """Return the index, with the operations that have all words of the query. An empty query selects all."""
        words = query.casefold().split()
        sections = [
            section._replace(operations=operations)
            for section in self._reference.sections
            if (operations := [operation for operation in section.operations if _matches(section, operation, words)])
        ]
        return self._render("reference.html", query=query, found=sections)

    def find_section(self, name: str) -> bytes | None:
        """Return the page of a tag, or None."""
        return self._pages.get(name)

    def _render(self, template: str, **values: object) -> bytes:
        shared = {"reference": self._reference, "style": STYLE, "script": SCRIPT}
        return TEMPLATES.get_template(template).render(**shared, **values).encode()


def _matches(section: Section, operation: Operation, words: list[str]) -> bool:
    names = [field.name for field in operation.parameters]
    kinds = [content.kind for content in (*operation.bodies, *operation.answers)]
    text = " ".join((section.name, operation.method, operation.path, operation.summary, *names, *kinds)).casefold()
    return all(word in text for word in words)
