"""The billing steps of a round: the charge of the request, the books, and a purchase of credits."""

import uuid
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from edgeproxy.probe.fetch import Answer, Fetch, wait_until
from edgeproxy.probe.steps import ProbeError, Statement, parse_latest_month, parse_numbers, parse_statement, parse_texts

POLL_SECONDS = 2.0
"""Seconds between two requests: each customer may send a hundred per minute."""
PURCHASE_MILLICREDITS = 5_000_000
"""Millicredits of a purchase, 5 US dollars: the smallest purchase."""
SANDBOX = "/_sandbox/checkout/"
"""The start of the paths of payment pages that need no person (docs/billing/stripe-sandbox.md)."""
TRIES = 3
"""How often the books are checked: a booking between two requests can make one check fail."""


class Session(NamedTuple):
    """A session of Checkout: its id, and its payment page."""

    id: str
    url: str

    @property
    def is_payable(self) -> bool:
        """The session can be paid without a person: only at the sandbox. Stripe's own page needs a browser."""
        return urlsplit(self.url).path.startswith(SANDBOX)


class Credits:
    """The credits of a token's customer in the collector. All methods raise ProbeError."""

    def __init__(self, collector: str, token: str, fetch: Fetch, patience: float) -> None:
        self._collector = collector
        self._fields = {"Authorization": f"Bearer {token}"}
        self._fetch = fetch
        self._patience = patience

    def fetch_available(self) -> int:
        """Return the remaining millicredits, less usage that is not booked yet."""
        return parse_numbers(self._request("/billing/balance"), "available")[0]

    def wait_for_charge(self, before: int) -> None:
        """Wait until the remaining credits are below `before`."""
        wait_until(
            lambda: self.fetch_available() < before,
            self._patience,
            POLL_SECONDS,
            "the request has cost no credits",
        )

    def check_books(self) -> None:
        """Check that the balance is the sum of the statement's lines."""
        for _ in range(TRIES):
            before = self._fetch_balance()
            statement = self._fetch_statement()
            if self._fetch_balance() == before:
                statement.check(before)
                return
        raise ProbeError(f"the balance has changed {TRIES} times while it was checked: do others use this customer?")

    def create_session(self) -> Session:
        """Create a session of Checkout, and check that its payment page exists."""
        purchase = {"millicredits": PURCHASE_MILLICREDITS, "success_url": self._collector}
        fields = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        id_, url = parse_texts(self._request("/billing/checkout", orjson.dumps(purchase), fields), "id", "url")
        session = Session(id_, url)
        page = self._fetch(session.url, {})
        if not 200 <= page.status < 400:
            raise ProbeError(f"the page of Checkout is answered {page.status}")
        return session

    def pay_session(self, session: Session) -> None:
        """Pay a payable session, and wait until its credits are booked."""
        payment = self._fetch(f"{session.url}/pay", {"Content-Type": "application/json"}, b"{}")
        if payment.status != 200:
            raise ProbeError(f"the payment is answered {payment.status}")
        wait_until(
            lambda: (session.id, PURCHASE_MILLICREDITS) in self._fetch_statement().purchases,
            self._patience,
            POLL_SECONDS,
            f"{session.id} is paid, and its credits are not booked",
        )

    def _fetch_balance(self) -> int:
        return parse_numbers(self._request("/billing/balance"), "balance")[0]

    def _fetch_statement(self) -> Statement:
        """Return the statement of the latest month, or an empty one."""
        month = parse_latest_month(self._request("/billing/statements"))
        return (
            Statement(0, 0, 0, ()) if month is None else parse_statement(self._request(f"/billing/statements/{month}"))
        )

    def _request(self, path: str, body: bytes | None = None, fields: dict[str, str] | None = None) -> bytes:
        answer: Answer = self._fetch(f"{self._collector}{path}", {**self._fields, **(fields or {})}, body)
        if answer.status not in (200, 201):
            raise ProbeError(f"the collector answered {answer.status} to {path}")
        return answer.body
