"""The short path through open gates has exactly the effects of the long path on counts, words and reports."""

import random
from pathlib import Path

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import HELD, NEVER
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import Admission, admit, admit_fast, find_blocking_gate, notify_hosts
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.quota import QuotaCounts
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Slots
from tests.support.tables import SHARED, close_all, limits, list_ring_words, make

STORIES = 25
STEPS = 400
MODES = (*["bounded"] * 6, *["eventual"] * 3, "strict")
RULES = (
    Rule("minute", 300, 60.0),
    Rule("second", 40, 1.0),
    Rule("bucket", 100, 10.0, algorithm="token_bucket", depth=30),
    Rule("both", 100, 10.0, algorithm="hybrid", depth=30),
)
AT_ONCE = Rule("concurrency", 5, 0.0, "customer", "concurrency")


class Total:
    """Records the reports of slots in use."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def used(self, now: float) -> None:
        self.times.append(now)


class World:
    """Two workers and a writer of the hub's answers, on one table."""

    def __init__(self, folder: Path, chance: random.Random, *, short: bool) -> None:
        folder.mkdir()
        path = make(folder, SHARED._replace(rows=4))
        self.short = short
        self.shortly = 0
        self.table, self.others = limits(path, 0), limits(path, 1)
        self.rules = chance.sample(RULES, chance.randint(1, 3))
        self.cost = chance.choice((1, 1, 1, 3))
        self.told: list[tuple[str, bool]] = []
        self.at_once = Total()
        self.now = 5000.0
        self.policies = Policies(self.table, sharing=self)
        theirs = Policies(self.others)
        self.siblings = [theirs.get_policy(rule, b"acme", 1) for rule in self.rules]
        held = [self.policies.get_policy(rule, b"acme", self.cost) for rule in self.rules]
        gates = [self.policies.gate(rule, b"acme", chance.choice(MODES)) for rule in self.rules]
        doors = [(policy, gate) for policy, gate in zip(held, gates, strict=True) if gate is not None]
        if len(doors) > 1 and chance.random() < 0.3:
            doors.pop(chance.randrange(len(doors)))
        at_once = (self.policies.get_concurrency(AT_ONCE, b"acme"),) if chance.random() < 0.5 else ()
        self.terms = LimitSet(tuple(held), slots=at_once, gates=tuple(doors), totals=(self.at_once,))
        self.under_way = 0

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: str) -> Gate:
        return Gate(table, counts, rule.depth or rule.limit, mode, self.notify_hosts)

    def total(self, table: LimitTable, counts: Slots | QuotaCounts, limit: int) -> "Total":
        return self.at_once

    def notify_hosts(self, gate: Gate) -> None:
        self.told.append((gate.mode, gate.has_refused))

    # ---- events

    def request(self) -> Admission | str:
        terms = self.terms
        admission = admit_fast(terms, self.now) if self.short else None
        if admission is not None:
            self.shortly += 1
        else:
            if (held := find_blocking_gate(terms, self.now)) is not None:
                return held[0].name
            admission = admit(terms, self.now)
            notify_hosts(terms, self.now, admission[0], admission[3])
        if not admission[0]:
            self.under_way += 1
        return (*admission[:1], admission[1] and admission[1].name, *admission[2:])  # type: ignore[return-value]

    def answered(self) -> None:
        if self.under_way:
            self.under_way -= 1
            self.terms.release()

    def answer(self, chance: random.Random) -> None:
        """Write an answer as edge/sync/shared.py does: the version of the row changes last."""
        words, layout = self.table.words, self.table.layout
        hosts, on_loss = chance.choice((1, 2, 3, 3 | at.AWAY)), chance.choice((at.FULL, at.SHARE, at.DENY))
        for _, gate in self.terms.traits.sharing.gates:
            drawn = (
                [chance.random() for _ in range(3)],
                chance.choice((0, 0, 0, 0, 2)),
                chance.choice((0, 1, 5, 20, 100, NEVER)),
            )
            (share, warm, tight), given, worth = drawn
            if not gate.row:
                continue
            row, hub = gate.row, gate.row + layout.head(layout.columns - 1)
            own = row + self.table.head_at
            counted = sum(words[row + layout.heads + at.CUM : hub : layout.width].tolist())
            words[own + at.GIVEN] += given
            words[row + at.ROW_ACKNOWLEDGED] = int(counted * (0.5 + share / 2)) if share < 0.5 else counted
            words[hub + at.THRESHOLDS] = (NEVER if tight < 0.3 else int(tight * 30)) << 32 | worth
            words[hub + at.WARM_UNTIL] = int((self.now + 3 * warm) * 1000)
            if hosts & at.AWAY:
                # Either the row is held to a share, or the last answer has expired.
                words[hub + at.THRESHOLDS] = HELD if tight < 0.5 and on_loss != at.DENY else 0
                words[hub + at.WARM_UNTIL] *= words[hub + at.THRESHOLDS] == HELD
            words[row + at.ROW_SYNC] += 1
        words[at.ON_LOSS] = on_loss
        words[at.HOSTS] = hosts

    def sibling(self, chance: random.Random) -> None:
        for policy in self.siblings:
            if chance.random() < 0.5 and policy.left(self.now) >= 1:
                policy.charge(1)

    def change(self, chance: random.Random) -> None:
        for _, gate in self.terms.traits.sharing.gates:
            gate.update_terms(gate.most, chance.choice(MODES))

    def back(self, chance: random.Random) -> None:
        """Return unused claims."""
        for _, gate in self.terms.traits.sharing.gates:
            if gate.row:
                claims.return_claims(self.table, gate.row)

    def seen(self) -> list[list[int]]:
        """Return all words of the rows."""
        words, layout = self.table.words, self.table.layout
        end = layout.head(layout.columns)
        return [
            list_ring_words(self.table, gate.row) + words[gate.row + layout.heads : gate.row + end].tolist()
            for _, gate in self.terms.traits.sharing.gates
            if gate.row
        ]


def test_the_short_path_has_the_effects_of_the_long_path(tmp_path: Path, seed: int) -> None:
    shortly = asked = 0
    for story in range(STORIES):
        worlds = [World(tmp_path / f"{story}-{n}", random.Random(f"{seed}/{story}"), short=n == 0) for n in range(2)]
        chance = random.Random(f"{seed}/{story}/steps")
        short, long = worlds
        for step in range(STEPS):
            passed = chance.choice((0.0, 0.0, 0.001, 0.01, 0.01, 0.1, 0.3))
            act = chance.choices(("request", "answered", "answer", "sibling", "change", "back"), (60, 20, 8, 10, 1, 1))
            drawn = chance.random()
            found = []
            for world in worlds:
                world.now += passed
                if act[0] in ("request", "answered"):
                    found.append(getattr(world, act[0])())
                else:
                    getattr(world, act[0])(random.Random(drawn))
            where = f"seed {seed}, story {story}, step {step}: {act[0]}"
            assert len({str(one) for one in found}) <= 1, (where, found)
            asked += any(isinstance(one, str) for one in found)
            assert short.seen() == long.seen(), where
            assert short.told == long.told, where
            assert short.at_once.times == long.at_once.times, where
        shortly += short.shortly
        assert long.shortly == 0
        close_all()
    assert shortly > STORIES * 3
    assert asked > STORIES
