"""An unprotected Flask service: it serves every raw path with a known prefix.

It runs under gunicorn, see tests/support/companions.py. prefix_service.mjs is its equivalent on Express.
"""

from typing import Any

import flask

PREFIXES = ("v1", "open", "maybe", "put", "get", "paid")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
EXACT = {"RAW_URI": "target", "REQUEST_METHOD": "method"}

app = flask.Flask(__name__)


def report(rest: str) -> dict[str, Any]:
    """Return the served prefix, and the variables that WSGI makes of the fields: X_Customer_Id and X-Customer-Id
    collide.
    """
    environ = flask.request.environ
    fields = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    served = flask.request.url_rule.rule.split("/")[1] if flask.request.url_rule else ""
    length = len(flask.request.get_data())
    return {"served": served, "fields": fields, "length": length, **{EXACT[name]: environ[name] for name in EXACT}}


for prefix in PREFIXES:
    app.add_url_rule(f"/{prefix}/<path:rest>", prefix, report, methods=METHODS, provide_automatic_options=False)
