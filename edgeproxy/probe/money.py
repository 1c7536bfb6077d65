"""The steps of a round that are about money: what the request costs, what is booked, and a purchase of credits."""

import uuid
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from edgeproxy.probe.fetch import Answer, Fetch, wait_until
from edgeproxy.probe.steps import Failed, Statement, latest_month, numbers_of, statement_of, texts_of

POLL_SECONDS = 2.0
"""Between two questions: each customer may ask a hundred times a minute."""
BOUGHT = 5_000_000
"""Millicredits of a purchase, 5 US dollars: the least that can be bought."""
SANDBOX = "/_sandbox/checkout/"
"""How the paths of pages begin on which nobody needs to type in a card (docs/billing/stripe-sandbox.md)."""
TRIES = 3
"""Times that books are looked at, as something may be booked between two questions."""


class Session(NamedTuple):
    """A session of Checkout: its id, and the page at which it is paid."""

    id: str
    url: str

    @property
    def is_payable(self) -> bool:
        """Whether it can be paid without a person: at the sandbox alone. Stripe's own page wants a browser."""
        return urlsplit(self.url).path.startswith(SANDBOX)


class Credits:
    """The credits of a token's customer, as the collector tells of them. All methods raise Failed."""

    def __init__(self, collector: str, token: str, fetch: Fetch, patience: float) -> None:
        self._collector = collector
        self._fields = {"Authorization": f"Bearer {token}"}
        self._fetch = fetch
        self._patience = patience

    def available(self) -> int:
        """Return the millicredits that are left, less what was used and is not booked yet."""
        return numbers_of(self._ask("/billing/balance"), "available")[0]

    def wait_for_charge(self, before: int) -> None:
        """Wait until less is left than there was `before`."""
        wait_until(
            lambda: self.available() < before,
            self._patience,
            POLL_SECONDS,
            "the request has cost no credits",
        )

    def check_books(self) -> None:
        """Check that the balance is what the lines of the statement come to."""
        for _ in range(TRIES):
            before = self._balance()
            statement = self._statement()
            if self._balance() == before:
                statement.check(before)
                return
        raise Failed(f"the balance has changed {TRIES} times while it was looked at: do others use this customer?")

    def begin_purchase(self) -> Session:
        """Begin to buy credits, and see that the page is there at which they are paid."""
        wanted = {"millicredits": BOUGHT, "success_url": self._collector}
        fields = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        id_, url = texts_of(self._ask("/billing/checkout", orjson.dumps(wanted), fields), "id", "url")
        session = Session(id_, url)
        page = self._fetch(session.url, {})
        if not 200 <= page.status < 400:
            raise Failed(f"the page of Checkout is answered {page.status}")
        return session

    def purchase(self, session: Session) -> None:
        """Pay a session that is payable, and wait until its credits are booked."""
        paid = self._fetch(f"{session.url}/pay", {"Content-Type": "application/json"}, b"{}")
        if paid.status != 200:
            raise Failed(f"the payment is answered {paid.status}")
        wait_until(
            lambda: (session.id, BOUGHT) in self._statement().purchases,
            self._patience,
            POLL_SECONDS,
            f"{session.id} is paid, and its credits are not booked",
        )

    def _balance(self) -> int:
        return numbers_of(self._ask("/billing/balance"), "balance")[0]

    def _statement(self) -> Statement:
        """Return the statement of the latest month; an empty one where nothing was ever booked."""
        month = latest_month(self._ask("/billing/statements"))
        return Statement(0, 0, 0, ()) if month is None else statement_of(self._ask(f"/billing/statements/{month}"))

    def _ask(self, path: str, body: bytes | None = None, fields: dict[str, str] | None = None) -> bytes:
        answer: Answer = self._fetch(f"{self._collector}{path}", {**self._fields, **(fields or {})}, body)
        if answer.status not in (200, 201):
            raise Failed(f"the collector answered {answer.status} to {path}")
        return answer.body
