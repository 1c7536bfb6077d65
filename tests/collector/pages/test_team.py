"""Colleagues of a customer: invited by mail, with a role that pages and API hold them to, and removed at once."""

import secrets

import pytest

from edgeproxy.collector.accounts.contact_roles import CONTACT_ROLES, EVERYBODY, OWNERS, PAYERS, ContactRole
from edgeproxy.collector.api import contact_rights
from edgeproxy.collector.api.auth import CUSTOMER, DeniedError, Holder
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.pages import invitations
from edgeproxy.collector.pages.sessions import Link
from edgeproxy.collector.pages_service import list_signed_in_pages
from loadtest.testbed.collector import ADMIN
from tests.support.mailbox import html_of, text_of
from tests.support.site import PLACES, SCRAPE, PagesStage
from tests.support.visitor import Visitor

HOSTILE = "<img src=x onerror=alert(1)>"
SHARED = {"email": "shared@example.com", "role": "billing"}
OF_MONEY = ("/account/plan", "/account/invoices", "/account/credits")
OF_BUILDING = ("/account/keys", "/account/webhooks")
FIELDS = {"email": "x@example.com", "role": "owner", "amount": "5", "below": "5", "month_max": "50"}
FIELDS |= {"plan": "standard", "overlap": "1d", "url": "https://hooks.example.com/", "types": "invoice.paid"}
"""Fields of forged forms, which pass the checks that pages make before they call the API."""


def invite(stage: PagesStage, owner: Visitor, email: str, role: str) -> str:
    """Let an owner invite a person. Return the link of the mail."""
    before = len(stage.mailbox.mails)
    owner.get("/account/team")
    owner.send("/account/team/invite", email=email, role=role)
    assert owner.status == 200, owner.read.text
    # Notices for other people may arrive meanwhile.
    link = stage.wait_for_link(email.lower(), before)
    mail = next(mail for mail in stage.mailbox.mails[before:] if link in text_of(mail))
    assert "acme" in str(mail["Subject"])
    assert "acme@example.com" in text_of(mail), "the mail says who invites"
    return link


def enter(stage: PagesStage, link: str) -> Visitor:
    """Sign in by a link."""
    visitor = Visitor(stage.site)
    visitor.get(link)
    visitor.send("/sign-in/link")
    assert visitor.answer.url.path == "/account", visitor.read.text
    return visitor


def count_denials(stage: PagesStage) -> int:
    """Return how many requests the collector has denied."""
    text = stage.collector.get("/metrics", token=SCRAPE).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("collector_denied_total ")]
    return int(float(line.split()[1]))


def open_statuses(visitor: Visitor, paths: tuple[str, ...]) -> set[int]:
    """Return the set of statuses of these pages."""
    return {visitor.client.get(path).status_code for path in paths}


@pytest.mark.parametrize(("role", "others"), [("developer", OF_MONEY), ("billing", OF_BUILDING)])
def test_colleague_cannot_apply_any_form_of_another_role(
    stage: PagesStage, role: ContactRole, others: tuple[str, ...]
) -> None:
    stage.join(f"of-{role}")
    contact = {"email": f"forger-{role}@example.com", "role": role}
    assert stage.collector.send("POST", f"/v1/customers/of-{role}/contacts", contact).status == 201
    roots = (*others, *(f"/account/team/{step}" for step in ("invite", "role", "remove")), "/account/data/delete")
    with stage.customer(f"forger-{role}") as forger:
        form = forger.get("/account").form("/sign-out").fields["form"]
        for page in list_signed_in_pages(sells=True):
            if (page.method, page.who) == ("POST", "customer") and page.path.startswith(roots):
                fields = FIELDS | {"name": f"of-{role}", "form": form, "once": secrets.token_hex(16)}
                forger.post(f"{stage.site}{page.path.format(**PLACES)}", fields)
                assert forger.status == 403, page


def test_role_limits_a_colleague_and_a_change_applies_at_once(stage: PagesStage) -> None:
    with (
        stage.customer("acme") as owner,
        enter(stage, invite(stage, owner, "Dev@example.com", "developer")) as developer,
        enter(stage, invite(stage, owner, "pay@example.com", "billing")) as payer,
    ):
        denied = count_denials(stage)
        for visitor, own, others in ((developer, OF_BUILDING, OF_MONEY), (payer, OF_MONEY, OF_BUILDING)):
            links = set(visitor.get("/account").links)
            assert set(own) <= links
            assert not links & set(others), "no page leads where the role may not go"
            for path in ("/account/month", "/account/usage", "/account/limits", "/account/alerts", "/account/team"):
                assert visitor.get(path).text
                assert (path, visitor.status) == (path, 200)
            assert open_statuses(visitor, own) == {200}
            assert count_denials(stage) == denied, "pages ask for nothing in vain"
            assert open_statuses(visitor, others) == {403}
            denied += len(others)
        # A form that the page does not show is of no use: neither its path nor a forged field.
        token = payer.get("/account").form("/sign-out").fields["form"]
        for path, fields in (
            ("/account/keys", {"name": "mine"}),
            ("/account/team/invite", {"email": "friend@example.com", "role": "owner"}),
            ("/account/team/role", {"email": "pay@example.com", "role": "owner"}),
            ("/account/team/remove", {"email": "acme@example.com"}),
        ):
            payer.post(f"{stage.site}{path}", {"form": token, "once": secrets.token_hex(16), **fields})
            assert (path, payer.status) == (path, 403)
        owner.get("/account/team")
        (form,) = [
            form for form in owner.read.forms if form.action.endswith("/role") and "pay@" in form.fields["email"]
        ]
        for role, status in (("admin", 422), ("customer", 422), ("developer", 200)):
            owner.post(f"{stage.site}{form.action}", {**form.fields, "role": role})
            assert (role, owner.status) == (role, status)
        assert open_statuses(payer, OF_MONEY) == {403}, "in the session that is open"
        assert open_statuses(payer, OF_BUILDING) == {200}
        people = stage.collector.get("/v1/customers/acme/contacts").json()["contacts"]
        assert {person["email"]: person["role"] for person in people} == {
            "acme@example.com": "owner",
            "dev@example.com": "developer",
            "pay@example.com": "developer",
        }
        assert all(person["signed_in_at"] for person in people)
        (entry, *_) = [
            entry for entry in stage.entries("customer.contacts") if entry["actor"] == "contact:acme@example.com"
        ]
        assert entry["after"] == {"email": "dev@example.com", "role": "developer"}


def test_removed_colleague_loses_the_session_and_sign_in_links(stage: PagesStage) -> None:
    with stage.customer("acme") as owner:
        link = invite(stage, owner, "gone@example.com", "developer")
        spare = invite(stage, owner, "gone@example.com", "developer")
        with enter(stage, link) as gone:
            gone.get("/account/keys")
            owner.get("/account/team")
            (form,) = [
                form for form in owner.read.forms if form.action.endswith("/remove") and "gone@" in form.fields["email"]
            ]
            owner.post(f"{stage.site}{form.action}", form.fields)
            assert "done=removed" in str(owner.answer.url)
            gone.send("/account/keys", name="backdoor")
            assert gone.status == 401
            assert gone.get("/account").forms[0].action == "/sign-in"
            gone.get(spare)
            gone.send("/sign-in/link")
            assert gone.status == 403
        assert "backdoor" not in {key["name"] for key in stage.collector.get("/v1/customers/acme/keys").json()["keys"]}


def test_the_last_owner_stays_and_says_so_in_words(stage: PagesStage) -> None:
    with stage.customer("bolt") as owner:
        owner.get("/account/team")
        owner.send("/account/team/remove")
        assert (owner.status, "Make somebody else an owner first." in owner.read.text) == (409, True)
        owner.get("/account/team")
        owner.send("/account/team/role", role="billing")
        assert owner.status == 409
        for email in (HOSTILE, "a@b.example\r\nBcc: x@y.example", "a@b.example,c@d.example", ""):
            owner.get("/account/team")
            owner.send("/account/team/invite", email=email, role="owner")
            assert (email, owner.status) == (email, 422)
            assert not owner.read.tags & {"img"}


def test_invitations_do_not_bomb_a_mailbox_nor_many(stage: PagesStage, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(stage.mailbox.mails)
    with stage.customer("bolt") as owner:
        for number in range(invitations.INVITATIONS_PER_ADDRESS + 2):
            owner.get("/account/team")
            owner.send("/account/team/invite", email="victim@example.com", role="billing")
            is_allowed = number < invitations.INVITATIONS_PER_ADDRESS
            assert owner.status == (200 if is_allowed else 409)
            owner.get("/account/team")
            forms = [
                form
                for form in owner.read.forms
                if form.action.endswith("/remove") and "victim@" in form.fields["email"]
            ]
            assert len(forms) == is_allowed, "a refused form changes nothing"
            for form in forms:
                owner.post(f"{stage.site}{form.action}", form.fields)
                assert owner.status == 200
    to_victim = [mail for mail in stage.mailbox.mails[count:] if mail["To"] == "victim@example.com"]
    assert len(to_victim) == invitations.INVITATIONS_PER_ADDRESS, "removing somebody gives no further mail"


def test_all_customers_together_do_not_bomb_a_mailbox(stage: PagesStage) -> None:
    label, count = "contact:shared@example.com", len(stage.mailbox.mails)
    for number in range(invitations.INVITATIONS_PER_PERSON):
        stage.link_of(Link(label, f"other-{number}"), invitations.INVITATION_SECONDS)
    with stage.customer("bolt") as owner:
        owner.get("/account/team")
        owner.send("/account/team/invite", email="shared@example.com", role="billing")
        assert (owner.status, "the mail could not be sent" in owner.read.text) == (200, True)
        owner.get("/account/team")
        assert "shared@example.com" in owner.read.text, "the colleague can sign in"
    assert stage.collector.send("POST", "/v1/customers/acme/contacts", SHARED).status == 201
    link = stage.mailed_link("shared")
    (mail,) = [mail for mail in stage.mailbox.mails[count:] if mail["To"] == "shared@example.com"]
    assert text_of(mail).count(link.partition("?")[0]) == 2, "a link for each customer"
    assert html_of(mail).count('class="go"') == 2


def test_a_colleague_reads_and_handles_the_alerts_that_concern_the_role(stage: PagesStage) -> None:
    by_role = {
        "invoice_issued": {"owner", "billing"},
        "spend_reached": {"owner", "billing"},
        "key_created": {"owner"},
        "key_budget_reached": {"owner", "developer"},
        "quota_reached": {"owner", "billing", "developer"},
    }
    stage.collector.execute(
        "INSERT INTO alerts (key, kind, severity, customer, title, details, at, routed_at)"
        " VALUES (?, ?, 'warn', 'acme', ?, '{}', 1000, 1)",
        *((kind, kind, f"it is {kind}") for kind in by_role),
    )
    numbers = dict(stage.collector.execute("SELECT kind, id FROM alerts WHERE key = kind"))
    muted = {"span": "1d", "why": "noise"}
    for role in CONTACT_ROLES:
        email = f"{role}-reads@example.com"
        body = {"email": email, "role": role}
        assert stage.collector.send("POST", "/v1/customers/acme/contacts", body).status == 201
        with enter(stage, stage.link_of(Link(f"contact:{email}", "acme"))) as colleague:
            form = colleague.get("/account/alerts").form("/sign-out").fields["form"]
            for kind, roles in by_role.items():
                path = f"/account/alerts/{numbers[kind]}/"
                is_linked = any(path in form.action for form in colleague.get("/account/alerts").forms)
                colleague.post(f"{stage.site}{path}mute", {"form": form, **muted})
                is_muted = colleague.status == 200
                assert (role, kind, is_linked, is_muted) == (role, kind, *[role in roles] * 2)


def test_owner_manages_only_own_contacts_and_a_token_manages_none(stage: PagesStage) -> None:
    before = stage.collector.get("/v1/customers/acme/contacts").json()
    with stage.customer("bolt") as owner:
        owner.get("/account/team")
        owner.send("/account/team/invite", email="acme@example.com", role="billing")  # The address is free to invite,
        assert owner.status == 200
    assert stage.collector.get("/v1/customers/acme/contacts").json() == before  # the collector's contact is unchanged
    token = stage.collector.send("POST", "/v1/tokens", {"name": "acme-token", "customer": "acme"}).json()["secret"]
    for path in ("/v1/customers/acme/contacts", "/v1/customers/acme/contacts/remove"):
        body = {"email": "x@example.com"} | ({} if path.endswith("remove") else {"role": "owner"})
        assert stage.collector.send("POST", path, body, token=token).status == 403
    assert stage.collector.get("/v1/customers/acme/contacts", token=token).status == 200
    body = {"email": "ops@example.com", "role": "billing"}
    answers = [stage.collector.send("POST", "/v1/customers/acme/contacts", body, token=ADMIN) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]


def test_each_endpoint_of_customers_is_for_the_roles_that_it_concerns() -> None:
    holders = {
        role: Holder("contact:a@b.example", frozenset({CUSTOMER}), "acme", is_person=True, contact_role=role)
        for role in CONTACT_ROLES
    }
    allowed: dict[str, set[str]] = {role: set() for role in CONTACT_ROLES}
    denials: list[str] = []
    for group in GROUPS:
        for endpoint in group.endpoints:
            if CUSTOMER not in endpoint.roles:
                continue
            for role, holder in holders.items():
                try:
                    contact_rights.require_contact(holder, group.name, endpoint.method, endpoint.path)
                except DeniedError as error:
                    denials.append(error.why)
                    continue
                allowed[role].add(f"{endpoint.method} {endpoint.path}")
    assert not [denial for denial in denials if "a@b.example" in denial], "they are kept in the audit log, in the clear"
    assert allowed["developer"] | allowed["billing"] < allowed["owner"]
    for only in ("POST /billing/checkout", "POST /billing/subscription", "GET /billing/invoices/{invoice}/pdf"):
        assert (only in allowed["billing"], only in allowed["developer"]) == (True, False)
    for only in ("POST /v1/keys/{key}/rotate", "GET /v1/customers/{customer}/keys"):
        assert (only in allowed["billing"], only in allowed["developer"]) == (False, True)
    assert contact_rights.find_roles("a group that is new", "GET", "/v1/new") == OWNERS
    assert contact_rights.find_roles("billing", "GET", "/billing/usage") == EVERYBODY
    assert contact_rights.find_roles("usage", "GET", "/v1/usage/value") == PAYERS, "what is spent"
    operator = Holder("operator:ann", frozenset({"admin"}))
    contact_rights.require_contact(operator, "customers", "POST", "/v1/customers/{customer}/contacts")
