"""A collector with pages: its mail, its operator, its customers, and a Stripe sandbox for their payments."""

import asyncio
import base64
import itertools
import re
import time
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.pages import sessions
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages.sign_in import format_link
from loadtest.testbed.collector import ADMIN, COMMAND, Collector, sha256
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.mailbox import Mailbox, text_of
from tests.support.stripe_sandbox import KEY, Sandbox
from tests.support.used_database import use_database
from tests.support.visitor import Visitor

LINK = re.compile(r"http://\S+/sign-in/link\?token=\S+")
SCRAPE = "scrape-token"
"""The token for its metrics."""
AN_ID = "00000000-0000-7000-8000-000000000000"
PLACES = {"endpoint": "we_0", "customer": "acme", "key": AN_ID, "edge": "e", "seq": "1", "letter": "l", "alert": "1"}
PLACES |= {
    "operation": "createOrder",
    "incident": AN_ID,
    "maintenance": AN_ID,
    "request": AN_ID,
    "invoice": AN_ID,
    "purchase": "cs_test_none",
    "month": "2027-01",
    "token": "t",
    "line": "0",
    "change": AN_ID,
}
"""Values for the parameters of page paths. Only the customer exists."""


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e"
ORDER = {
    "type": "object",
    "required": ["item"],
    "properties": {
        "item": {"type": "string", "description": HOSTILE},
        "parent": {"$ref": "#/components/schemas/Order"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "integer"}}}},
        "elsewhere": {"$ref": "https://attacker.example/schema.json"},
        "loop": {"$ref": "#/components/schemas/Loop"},
    },
}
API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": f"Orders {HOSTILE}", "version": "2", "description": HOSTILE},
    "tags": [{"name": "orders", "description": HOSTILE}],
    "paths": {
        "/v1/ping": {"get": {"summary": "Ping", "responses": {"200": {"description": "It is there."}}}},
        "/v1/orders/{id}'; reboot #": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "post": {
                "operationId": "createOrder",
                "tags": ["orders"],
                "summary": f"Order {HOSTILE}",
                "deprecated": True,
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Order"},
                            "example": {"item": "it's <b>new</b>"},
                        }
                    }
                },
                "responses": {"201": {"description": HOSTILE}, "default": {"$ref": "#/components/responses/none"}},
            },
        },
    },
    "components": {"schemas": {"Order": ORDER, "Loop": {"$ref": "#/components/schemas/Loop"}}},
}
"""A description whose texts, paths and references are hostile."""


class PagesStage:
    """A collector with pages, and an operator who signed in by the printed link."""

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        *,
        collector: Mapping[str, object] | None = None,
        command: tuple[str, ...] = COMMAND,
        **pages: object,
    ) -> None:
        """By default the database is SQLite; `database` is the URL of another one.

        `command` starts the collector. `collector` holds further settings of the collector, `pages` those of its
        pages.
        """
        self.mailbox = Mailbox()
        self._addresses = itertools.cycle(range(2, 255))
        self.collector = Collector(folder / "collector", database or f"sqlite:///{folder}/ledger.db")
        self.collector.command = command
        self.sandbox = Sandbox(folder / "stripe").start()
        mail = {"server": f"{HOST}:{self.mailbox.port}", "sender": "edge@example.com", "tls": "none"}
        regions = {
            "eu-west": {"url": f"http://{HOST}:{self.collector.port}/healthz", "latency": "10s"},
            "us-east": {"url": "http://127.0.0.1:1/healthz"},
        }
        components = {"portal": regions["eu-west"]}
        self.collector.settings |= {
            "tiers": {
                **self.collector.settings["tiers"],
                "standard": {
                    "limits": [{"rate": "1200/min"}],
                    "concurrency": 50,
                    "quotas": [
                        {"meter": "requests", "per": "month", "included": 20000},
                        {"meter": "agent_executions", "per": "day", "included": 100, "cap": "hard"},
                    ],
                },
                "pro": {
                    "limits": [{"rate": "600/min"}],
                    "quotas": [{"meter": "requests", "per": "month", "included": 5}],
                },
            },
            "customers": {},
            "metrics": {"tokens": [{"name": "prometheus", "sha256": sha256(SCRAPE)}]},
            "meters": {
                "requests": {"count": "requests"},
                "calls": {"count": "requests", "dimensions": {"key": 100}},
                "tokens": {"count": "events"},
                "llm_tokens": {"count": "events", "dimensions": {"model": 10}},
                "refused": {"count": "refusals"},
                "workflows": {"count": "holdings"},
            },
            # The first fee is for a whole month. In a calendar month's last hours Stripe would not charge it.
            "billing": self.collector.settings["billing"] | self._paying(folder) | {"anchor": "signup"},
            "alerts": {
                "channels": {
                    "mail": {
                        "smtp": f"smtp://{HOST}:{self.mailbox.port}",
                        "from": "edge@example.com",
                        "to": "ops@example.com",
                    }
                },
                "customers": "mail",
            },
            "pages": {
                "mail": mail,
                "status": {"every": "1s", "regions": regions, "components": components, "subscribe": True},
                "api": self._described(folder),
            }
            | pages,
            "regions": {"names": list(regions)},
            "rotation": {"deliver": "webhook", "grace": "2d"},  # A customer without a public key uses the portal.
            "webhooks": {"encryption": base64.b64encode(b"w" * 32).decode(), "networks": ["127.0.0.0/8"]},
        }
        self.collector.settings |= collector or {}
        self.collector.start()
        self.site = f"http://{HOST}:{self.collector.port}"
        self.operator = Visitor(self.site)
        until(lambda: LINK.search(self.collector.output) is not None, "the link is printed")
        self.link = LINK.findall(self.collector.output)[0]
        self.operator.get(self.link)
        self.operator.send("/sign-in/link")
        for name in ("acme", "bolt"):
            self.join(name)

    def _described(self, folder: Path) -> dict[str, str]:
        """Return the API that customers' keys are for, with a description that contains markup."""
        file = folder / "openapi.json"
        file.write_bytes(orjson.dumps(API))
        return {"url": "https://api.example.com", "example": "/v1/ping", "openapi": str(file)}

    def _paying(self, folder: Path) -> dict[str, Any]:
        """Return the settings for charges at the sandbox, whose webhooks report payments."""
        key, secrets = folder / "key", folder / "secrets"
        key.write_text(KEY)
        secrets.write_text(self.sandbox.listen(f"http://{HOST}:{self.collector.port}/billing/webhooks/stripe"))
        way = {"base": self.sandbox.url, "key": str(key), "webhook_secrets": str(secrets)}
        currencies = {"EUR": {"rate": "0.8", "date": "2026-11-20"}, "JPY": {"rate": "150.5", "date": "2026-11-20"}}
        sold = {"cogs": {"llm_tokens": "0.000006"}}
        seller = {"name": "Example Edge Ltd", "address": ["1 Harbour Row", "Dublin D01"], "tax_number": "IE1234567FA"}
        return {"mode": "live", "stripe": way, "currencies": currencies, "credits": sold, "seller": seller}

    def join(self, name: str) -> None:
        """Create a customer, and a contact who may sign in."""
        assert self.collector.send("POST", "/v1/customers", {"name": name, "tier": "pro"}).status == 201
        emails = {"emails": [f"{name}@example.com"]}
        assert self.collector.send("PUT", f"/v1/customers/{name}/contacts", emails).status == 200

    def buy(self, visitor: Visitor, usd: str) -> str:
        """Buy credits as a customer and pay them at the sandbox. Returns the id of the purchase once it is booked."""
        (form, *_) = [form for form in visitor.get("/account/credits").forms if form.action.endswith("/buy")]
        visitor.post(form.action, {**form.fields, "amount": usd})
        (url,) = [link for link in visitor.read.links if link.startswith(self.sandbox.url)]
        session = url.rpartition("/")[2]
        assert visitor.client.post(f"{url}/pay", json={"card": "pm_card_visa"}).status_code == 200
        booked = sa.select(credit_grants.c.id).where(credit_grants.c.id == session)

        async def is_booked(database: Database) -> bool:
            async with database.reading() as connection:
                return (await connection.execute(booked)).first() is not None

        until(lambda: use_database(self.collector.settings["database"], is_booked), "the purchase is booked")
        return session

    def save_card(self, name: str) -> None:
        """Save a card for payments without the customer, as on Stripe's page."""
        body = {"return_url": "https://shop.example/"}
        assert self.collector.send("POST", f"/billing/portal?customer={name}", body, token=ADMIN).status == 201
        listed = self.sandbox.call("GET", "/v1/customers?limit=100").json()["data"]
        (payer,) = [one["id"] for one in listed if one["name"] == name]
        card = "invoice_settings[default_payment_method]=pm_card_visa"
        assert self.sandbox.call("POST", f"/v1/customers/{payer}", card).status == 200

    def customer(self, name: str) -> Visitor:
        """Return a visitor who signed in for a customer by a mailed link."""
        visitor = Visitor(self.site)
        visitor.get(self.mailed_link(name))
        visitor.send("/sign-in/link")
        assert str(visitor.answer.url) == f"{self.site}/account"
        return visitor

    def mailed_link(self, name: str) -> str:
        """Return the link that a customer's contact gets on request."""
        before = len(self.mailbox.mails)
        with Visitor(self.site, f"127.0.0.{next(self._addresses)}") as visitor:  # One may ask a few times a minute.
            visitor.get("/sign-in")
            visitor.send("/sign-in", email=f"{name.upper()}@example.com")
        return self.wait_for_link(f"{name}@example.com", before)

    def wait_for_link(self, email: str, before: int = 0) -> str:
        """Return the link of the first mail with a link to this address, after `before` mails; notices have no link."""

        def find() -> str | None:
            theirs = [mail for mail in self.mailbox.mails[before:] if mail["To"] == email]
            return next((found[0] for mail in theirs if (found := LINK.search(text_of(mail)))), None)

        until(find, f"a link for {email} is there")
        return find() or ""

    def link_in(self, mail: EmailMessage) -> str:
        """Return the link in a mail."""
        found = LINK.search(text_of(mail))
        assert found
        return found[0]

    def link_of(self, link: Link, seconds: int = sessions.LINK_SECONDS) -> str:
        """Create a link in the database, without a mail."""

        async def make() -> str:
            database = await Database.connect(self.collector.settings["database"])
            try:
                async with database.writing() as connection:
                    return await sessions.create_link(connection, link, time.time(), seconds) or ""
            finally:
                await database.close()

        return format_link(self.site, asyncio.run(make()))

    def close(self) -> None:
        """Stop everything."""
        self.operator.client.close()
        self.collector.close()
        self.sandbox.close()
        self.mailbox.close()

    def entries(self, action: str) -> list[dict[str, object]]:
        """Return the audit log's entries of an action."""
        found: list[dict[str, object]] = self.collector.get("/v1/audit", token=ADMIN, action=action).json()["entries"]
        return found
