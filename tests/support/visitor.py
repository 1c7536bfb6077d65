"""A browser without scripts: it follows links, fills in forms and stores cookies."""

from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import httpx


class Form:
    """A form of a page: its target, and the current values of its fields."""

    def __init__(self, action: str, method: str) -> None:
        self.action = action
        self.method = method
        self.fields: dict[str, str] = {}


class Read(HTMLParser):
    """The forms, the links and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.loaded: list[str] = []
        """The URLs that the page makes the browser load."""
        self._area: str | None = None
        self._select: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Record a start tag."""
        said = {name: value or "" for name, value in attributes}
        if tag != "script" or not said.get("src", "").startswith("/pages/"):  # The site's own script is allowed.
            self.tags.add(tag)
        self.attributes |= said.keys()
        if "src" in said or (tag == "link" and said.get("rel") not in ("alternate", "expect")):
            self.loaded.append(said.get("src") or said["href"])
        if tag == "form":
            self.forms.append(Form(said.get("action", ""), said.get("method", "get")))
        elif tag == "a" and "href" in said:
            self.links.append(said["href"])
        elif tag == "input" and "name" in said and said.get("type") != "checkbox":
            self.forms[-1].fields[said["name"]] = said.get("value", "")
        elif tag == "input" and said.get("id") == "secret":
            self.secret = said["value"]
        elif tag == "textarea":
            self._area = said["name"]
            self.forms[-1].fields[self._area] = ""
        elif tag == "select":
            self._select = said["name"]
        elif tag == "option" and self._select and ("selected" in said or self._select not in self.forms[-1].fields):
            self.forms[-1].fields[self._select] = said.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        """Record an end tag."""
        if tag == "textarea":
            self._area = None
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        """Record text."""
        self.text += data
        if self._area is not None:
            self.forms[-1].fields[self._area] += data

    def form(self, action: str) -> Form:
        """Return the POST form whose action ends with this."""
        (found,) = [form for form in self.forms if form.method == "post" and form.action.endswith(action)]
        return found


class Visitor:
    """A browser without scripts, at one site."""

    def __init__(self, site: str, address: str = "127.0.0.1", **fields: str) -> None:
        """`address` is the client address."""
        self.site = site
        self.client = httpx.Client(
            base_url=site,
            follow_redirects=True,
            headers=fields,
            timeout=30.0,
            trust_env=False,
            transport=httpx.HTTPTransport(verify=False, local_address=address),
        )
        self.answer: httpx.Response
        self.read: Read

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def get(self, path: str) -> Read:
        """Open a page."""
        return self._took(self.client.get(path))

    def send(self, action: str, **said: str) -> Read:
        """Fill in the form whose action ends with this, and send it; other fields keep their values."""
        form = self.read.form(action)
        where = urljoin(str(self.answer.url), form.action)
        return self.post(where, {**form.fields, **said})

    def post(self, where: str, fields: dict[str, str]) -> Read:
        """Send a form as a page of this site does."""
        said = {"Origin": self.site, "Referer": str(self.answer.url)}
        return self._took(self.client.post(where, data=fields, headers=said))

    @property
    def status(self) -> int:
        """The status of the last answer."""
        return self.answer.status_code

    def _took(self, answer: httpx.Response) -> Read:
        self.answer = answer
        # The bytes of a download may look like a wrong marked section.
        self.read = Read(answer.text if answer.headers.get("content-type", "").startswith("text/html") else "")
        return self.read
