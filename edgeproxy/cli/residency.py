"""Commands about residencies: `residency move | moves`.

A move calls the collectors of both residencies, one step after the other. Each step may be repeated, and both record
the progress of the move. After an interruption, run the command again. It prints ids, and no other data of the
customer.
"""

import time
import uuid
from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, CustomerRef, Json, show
from edgeproxy.cli.endpoint_commands import Rows, build_command
from edgeproxy.cli.outcome import fail

FROM_TOKEN, TO_TOKEN = "EDGEPROXY_FROM_TOKEN", "EDGEPROXY_TO_TOKEN"
KEYS_AT_ONCE = 200
POLL_SECONDS = 1.0


class Move:
    """A move of one customer, step by step."""

    def __init__(self, source: Api, target: Api, customer: str) -> None:
        self._source, self._target = source, target
        listed = target.call("GET", "/v1/moves", query={"limit": "1"}, may_be_missing=True)
        if listed is None:
            fail("the collector of --to is of an earlier version, which takes no customers: upgrade it first", 1)
        self._to = listed["residency"]
        if self._to is None:
            fail("the collector of --to has no residency: set residency in its file", 2)
        self._path = source.customer_path(customer, "move")
        self.progress: JsonObject = {}
        """The move as the source residency reports it."""
        self.residency = ""
        """The source residency."""

    def preview(self, *, end_plan: bool) -> JsonObject:
        """Return the effects of the move, and try it at the target residency without changes."""
        query = {"residency": self._to, "end_plan": "true" if end_plan else "false"}
        departure: JsonObject = self._source.call("GET", self._path, query=query)
        self.residency = str(departure["residency"])
        if not departure["obstacles"] and departure["move"] is None:
            self._arrive(str(uuid.uuid4()), is_last=False, dry_run="true")
        return departure

    def run(self, *, end_plan: bool, quiet: float, wait: float) -> None:
        """Complete the move, or as much of it as possible within `wait` seconds."""
        self.progress = self._source.call("POST", self._path, {"to": self._to, "end_plan": end_plan})
        self._say(f"move {self.progress['id']} of {self.progress['customer_id']}: {self.progress['state']}")
        id_ = str(self.progress["id"])
        if self.progress["state"] == "begun":
            there = self._arrive(id_, is_last=False, keys=False)
            self._step("created", peer=there["customer_id"])
            self._say(f"created there as {there['customer_id']}, without keys")
        if self.progress["state"] == "created":
            self._step("promise")
            self._transfer(id_)
            self._step("go")
            self._say("edges go over as soon as they have the keys of the other residency")
        if self.progress["state"] == "gone":
            self._arrive(id_, is_last=True)
            self._say("the keys are there")
            self._await_edges(quiet, wait)
        self._settle(id_)
        if self.progress["state"] == "gone":
            self._step("leave")
            self._say("the deletion here has begun")
        self._report()

    def withdraw(self) -> None:
        """Withdraw a move before any transfer. The customer created at the target is erased."""
        self._step("withdraw")
        self._target.call("DELETE", f"/v1/arrivals/{self.progress['id']}", may_be_missing=True)
        self._say(f"move {self.progress['id']}: withdrawn")

    def _step(self, step: str, **more: object) -> None:
        self.progress = self._source.call("POST", f"{self._path}/steps", {"step": step, **more})

    def _arrive(self, id_: str, *, is_last: bool, keys: bool = True, dry_run: str | None = None) -> JsonObject:
        """Send the current customer, with its keys in portions."""
        document: JsonObject = self._source.call("GET", f"{self._path}/document")["document"]
        all_keys = document["keys"] if keys else []
        assert isinstance(all_keys, list)
        starts = range(0, len(all_keys), KEYS_AT_ONCE) or (0,)
        answered: JsonObject = {}
        for at in starts:
            some = {**document, "keys": all_keys[at : at + KEYS_AT_ONCE]}
            body = {"from": self.residency, "document": some, "is_last": is_last and at == starts[-1]}
            answered = self._target.call("PUT", f"/v1/arrivals/{id_}", body, dry_run=dry_run)
        return answered

    def _transfer(self, id_: str) -> None:
        """Book all promised credits at the target. Repeated bookings have no effect."""
        transfers = self.progress["transfers"]
        assert isinstance(transfers, list)
        for transfer in transfers:
            self._target.call("POST", f"/v1/arrivals/{id_}/transfers", transfer)

    def _settle(self, id_: str) -> None:
        """Transfer the remaining credits: the promised ones first, then the rest."""
        self._transfer(id_)
        self._step("book")
        while self.progress["millicredits"]:
            self._step("promise")
            self._transfer(id_)
            self._step("book")

    def _await_edges(self, quiet: float, wait: float) -> None:
        """Wait until each edge has shipped since the edges switched, and nothing new is counted here for `quiet`
        seconds.

        This includes the edges of the target residency. An edge that does not reach it knows no customer there. It
        would refuse this customer, even if it has no requests now, once the customer is being deleted here.
        """
        began = time.monotonic()
        deadline, counted, since = began + wait, -1, began
        while True:
            self.progress = self._source.call("GET", self._path, query={"residency": self._to})["move"]
            if self.progress["counted"] != counted:
                counted, since = int(str(self.progress["counted"])), time.monotonic()
            here = self.progress["behind"]
            assert isinstance(here, list)
            behind = here or self._list_behind_there(time.monotonic() - began)
            if not behind and time.monotonic() - since >= quiet:
                return
            if time.monotonic() >= deadline:
                why = (
                    f"edges that were not heard of since: {', '.join(map(str, behind))}" if behind else "usage comes in"
                )
                fail(f"not all edges are over: {why}. Nothing is lost: run the command again, or retire such edges", 1)
            time.sleep(POLL_SECONDS)

    def _list_behind_there(self, seconds: float) -> list[str]:
        """Return the edges that may have shipped nothing to the target for this many seconds; lags are whole
        seconds.
        """
        edges = [edge for edge in self._target.fetch_list("/v1/edges", "edges") if not edge["retired"]]
        return [str(edge["edge"]) for edge in edges if edge["lag_s"] is None or int(str(edge["lag_s"])) + 1 > seconds]

    def _report(self) -> None:
        late = self.progress["late"]
        if isinstance(late, dict) and late:
            listed = ", ".join(f"{count} {meter}" for meter, count in sorted(late.items()))
            self._say(f"late usage, which came here after the move: {listed}")
        self._say(f"move {self.progress['id']}: {self.progress['state']}, counted here: {self.progress['counted']}")

    def _say(self, text: str) -> None:
        typer.echo(text)


def move(
    customer: CustomerRef,
    source: Annotated[str, typer.Option("--from", metavar="URL", help=f"Its collector; token in ${FROM_TOKEN}.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help=f"The other collector; token in ${TO_TOKEN}.")],
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    end_plan: Annotated[
        bool, typer.Option("--end-plan", help="End its plan within its period, with the move.")
    ] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw a move before edges go over.")] = False,
    quiet: Annotated[float, typer.Option(metavar="SECONDS", help="Nothing is counted for so long at the end.")] = 120.0,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait so long for edges at most.")] = 900.0,
    as_json: Json = False,
    from_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Authorities of the one, for https.")] = None,
    to_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Authorities of the other, for https.")] = None,
) -> None:
    """Move a customer to another residency. If it is cut off, run it again: no step is taken twice."""
    moving = Move(Api(source, from_ca, FROM_TOKEN), Api(target, to_ca, TO_TOKEN), customer)
    if withdraw:
        moving.withdraw()
        return
    departure = moving.preview(end_plan=end_plan)
    if dry:
        show(departure, as_json)
    obstacles = departure["obstacles"]
    assert isinstance(obstacles, list)
    if obstacles and departure["move"] is None:
        fail("\n".join(map(str, obstacles)) if not dry else "it cannot leave now", 1)
    if not dry:
        moving.run(end_plan=end_plan, quiet=quiet, wait=wait)
        if as_json:
            show(moving.progress, as_json)


moves = build_command(
    "List moves of customers to and from other residencies.",
    "GET",
    "/v1/moves",
    output=Rows("moves", ("created_at", "side", "residency", "state", "customer_id", "peer", "id")),
)
