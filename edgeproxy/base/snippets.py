"""A request as code to copy: Python with its standard library, and TypeScript with `fetch`. Pure."""

import json
from collections.abc import Mapping

from edgeproxy.base.json_values import JsonValue


def build_python(method: str, url: str, headers: Mapping[str, str], body: JsonValue = None) -> str:
    """Return a request as Python. A body is sent as JSON; None sends none."""
    data = [] if body is None else [f"    data={json.dumps(body).encode()!r},"]
    return "\n".join(
        (
            "import urllib.request",
            "",
            "request = urllib.request.Request(",
            f"    {json.dumps(url)},",
            f"    method={json.dumps(method)},",
            f"    headers={json.dumps(headers)},",
            *data,
            ")",
            "with urllib.request.urlopen(request) as response:",
            '    print(response.status, response.read().decode("utf-8", "replace"))',  # An answer may be a file.
        )
    )


def build_typescript(method: str, url: str, headers: Mapping[str, str], body: JsonValue = None) -> str:
    """Return a request as TypeScript. A body is sent as JSON; None sends none."""
    sent = [] if body is None else [f"  body: JSON.stringify({json.dumps(body)}),"]
    return "\n".join(
        (
            f"const response = await fetch({json.dumps(url)}, {{",
            f"  method: {json.dumps(method)},",
            f"  headers: {json.dumps(headers)},",
            *sent,
            "});",
            "console.log(response.status, await response.text());",
        )
    )
