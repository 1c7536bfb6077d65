"""A request from its head to the decision to forward it: read, guard, find, admit, select, stamp, send.

An exchange belongs to one client connection and, for its duration, to one upstream connection. Those two move bytes;
the exchange decides. Its steps are those of the design, in that order, and `begin` calls them. The steps themselves
have the code for ordinary requests. Unusual requests leave them for functions that need not be fast:
unusual_request.py, own_response.py. A request that cannot be decided yet is suspended; the hub's or the supervisor's
answer calls `resume`. The rest of an exchange's life is in its base classes: `Forwarding`, `ResponseRelay`,
`ExchangeRecord`.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.base.clock import EPOCH
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import EdgeError, RejectedError, UnidentifiedError
from edgeproxy.edge.http1.grammar import METHODS
from edgeproxy.edge.http1.path import is_plain, normalize_target
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.limits.admission import (
    admit,
    admit_fast,
    can_afford,
    can_credits_cover,
    find_blocking_gate,
    list_exhausted,
    notify_hosts,
    spend_credits,
)
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding, Refusal
from edgeproxy.edge.proxy.exchange.own_response import record_notes
from edgeproxy.edge.proxy.exchange.request_wait import Wait
from edgeproxy.edge.proxy.exchange.unusual_request import prepare_unusual_head, read_unusual_request
from edgeproxy.edge.proxy.metering import meters
from edgeproxy.edge.proxy.observation.exchange_states import (
    AWAITS_BODY,
    AWAITS_CLAIMS,
    AWAITS_KEY,
    DECIDING,
    FORWARDED,
    UNREAD,
    WAITING,
    Progress,
    State,
    Unread,
)
from edgeproxy.edge.proxy.observation.request_ids import SAMPLED, SAMPLED_AT, SPAN_ID, format_trace
from edgeproxy.edge.proxy.routing.basic_credentials import Credentials, read_credentials
from edgeproxy.edge.proxy.routing.cors import find_requested_method, is_preflight
from edgeproxy.edge.proxy.routing.end_users import find_limit_set
from edgeproxy.edge.proxy.routing.identity import UnresolvedIdentity
from edgeproxy.edge.proxy.routing.password_verifier import Question
from edgeproxy.edge.proxy.routing.query_key import find_key
from edgeproxy.edge.proxy.routing.router import NO_SITE
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.held_budget import UNCOUNTED_BYTES
from edgeproxy.edge.proxy.transport.network_filter import OF_PLACE, create_address_error

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.snapshot import HeadMeaning
    from edgeproxy.edge.proxy.routing.basic_credentials import BasicUsers
    from edgeproxy.edge.proxy.routing.binding import Route
    from edgeproxy.edge.proxy.routing.identity import Identity
    from edgeproxy.edge.proxy.routing.preauth_policy import PreAuthPolicy

Outcome = Progress | Refusal
"""The outcome of a request so far."""

OVERLOADED: Final = "There is more to do than this edge can"


class Exchange(Forwarding):
    """A request and its answer, with the steps that decide the request."""

    answers_preflights = True
    """True if the edge answers browsers' preflights, False if the service does."""

    __slots__ = ()

    # ---- the steps of an ordinary request

    def begin(self, data: bytes, end: int, seen: "HeadMeaning | None" = None) -> Outcome:
        """Take a request from its head to its upstream. `end` is the position of the blank line in `data`.

        `seen` is the meaning of the head, if it is cached and `data` is the head alone.
        """
        try:
            self.read_request(data, end, seen)
            refusing = self._check_guard()
            if refusing is not None:
                return refusing
            if self.length > self.snapshot.max_body_bytes:
                return RejectedError(413, "The body is larger than this edge accepts")
            unbound = self._find_binding()
            if unbound is not None:
                return self.suspend(AWAITS_KEY, data, end) if unbound is WAITING else unbound
            return self.proceed(data, end)
        except EdgeError as error:
            # The traceback refers to the caller's frame, and the frame to the refusal: only the garbage collector would
            # free them.
            return error.with_traceback(None)

    def proceed(self, data: bytes, end: int) -> Outcome:
        """Continue from admission; called again after a wait for claims. Raises the errors of `select` and `_stamp`."""
        refusing = self.admit()
        if refusing is not None:
            if refusing is UNREAD:
                return self._await_prompt(data, end)
            return self.suspend(AWAITS_CLAIMS, data, end) if refusing is WAITING else refusing
        self.select()
        self._stamp(data, end)
        client = self.client
        bare = self.head is PLAIN and not self.length and len(data) == end + 4
        if not bare:
            self._begin_body(data[end + 4 :])
            assert self.binding is not None
            max_bytes = self.binding.route.service.max_buffered_bytes
            is_taken = self.binding.takes_whole_bodies and self.take_whole_body()
            if is_taken or (max_bytes is not None and self.start_buffering(max_bytes)):
                client.update_held()
                return FORWARDED
        # The whole request is here. Later checks ask the connections whether they allow an answer in one piece.
        self.accepts_whole = (bare or (self.head is PLAIN and client.body is None)) and self.method != b"HEAD"
        self.send()
        if not bare:
            if len(self.message) > UNCOUNTED_BYTES:
                client.update_held()
            if client.body is not None and self.server is not None:
                client.deadline = monotonic() + self.snapshot.body_idle
        return FORWARDED

    def read_request(self, data: bytes, end: int, seen: "HeadMeaning | None" = None) -> None:
        """Read the head.

        The caches know the meaning of a block of fields, and of a whole head whose block is cached, by its bytes.
        Arguments as in `begin`.
        """
        client, snapshot = self.client, self.snapshot
        alone = len(data) == end + 4 and not client.expects_new_head
        if seen is None and alone:
            seen = snapshot.whole_heads[client.trusted].recall_older(data)
        if seen is not None:
            self.method, self.path, self.request_line, fields = seen
            self.identity, self.site, self.credentials, self.keep, self.length, self.trace, self.head = fields
            return
        usual = snapshot.usual_line(data)
        begin = data.find(b"\r\n") + 2 if usual is None else usual.end()
        place = None if client.expects_new_head else client.key_place
        keyed = None if place is None else snapshot.recall_keyed_block(data, begin, end, place)
        cached = None
        if keyed is None:
            block = data[begin : end + 2]
            cached = None if client.expects_new_head else snapshot.heads[client.trusted][block]
            meaning = snapshot.read_new_block(client, block) if cached is None else cached
        else:
            meaning = keyed[1]
        self.identity, self.site, self.credentials, self.keep, self.length, self.trace, self.head = meaning
        if usual is None or self.site is NO_SITE:
            read_unusual_request(self, data[: begin - 2], data[begin : end + 2])
            return
        method, path, query = usual.groups()
        if method not in METHODS:
            read_unusual_request(self, data[: begin - 2], data[begin : end + 2])
            return
        self.method = method
        if is_plain(path):
            self.request_line = data[:begin]
            if alone and cached is not None:
                snapshot.whole_heads[client.trusted].store(data, (method, path, self.request_line, cached))
            elif alone and keyed is not None and place is not None:
                snapshot.store_keyed_head(data, place, path, self.request_line, keyed)
        else:
            path = normalize_target(path)
            self.request_line = b"%b %b%b HTTP/1.1\r\n" % (method, path, query or b"")
            snapshot.paths.check(path, method, self.site, self)
        self.path = path

    def _check_guard(self) -> LimitSet | None:
        """Charge the address limit, alone and before any key is read. Return it if it refuses."""
        client = self.client
        if client.trusted:
            client.apply_forwarded(self.head)
            if not client.address.admitted:
                raise create_address_error(OF_PLACE)
        guard = client.address.guard
        if guard is None:
            return None
        left = guard.left(self.now)
        if left < 1:
            self.shown_policy, self.shown_left = guard, left
            return client.address.guard_limit_set
        guard.charge()
        # RateLimit fields report the guard, unless a policy of the customer applies as well.
        self.shown_policy, self.shown_left = guard, left - 1
        return None

    def _find_binding(self) -> UnidentifiedError | Literal[Progress.WAITING] | None:
        """Find the route, and the customer's binding on it.

        Return WAITING if the key's owner must be looked up, or the refusal of a sender who is no customer. Raises
        RejectedError if there is no route, or the customer may not use it.
        """
        try:
            self.route = route = self.site.match(self.path, self.method, self)
        except RejectedError as error:
            self.route = route = self.find_preflight_route(error)
        if route.preauth_policy is not None:
            self.apply_preauth_policy(route.preauth_policy)
        identity = self.identity
        if identity.valid_until < self.now:
            refreshed = self._identify(identity, route)
            if refreshed is None:
                self._await_identity(route)
                return WAITING
            identity = refreshed
        if identity.route is not route:
            return self._bind(identity, route)
        self.binding = identity.binding
        return None

    def _bind(self, identity: "Identity", route: "Route") -> UnidentifiedError | None:
        """Bind the sender to another route than its latest one. Return the refusal of a sender who is no customer."""
        # A short function: the traceback of an error costs more in a long one.
        try:
            self.binding = identity.bind(route, self.now)
        except UnidentifiedError as error:
            error.with_traceback(None)  # As `begin` does. Senders share the error, so each would add its frames.
            # Browsers send preflights without a key. The service has its own CORS rules here.
            if error.reason == "missing" and route.cors is None and self._is_own_preflight():
                self.binding = self.snapshot.directory.browsers.bind(route)
                return None
            self.runtime.metrics.count_auth_failure(error.reason)
            return error
        return None

    def admit(self) -> LimitSet | Literal[Progress.WAITING, Unread.UNREAD] | None:
        """Charge all limits of the route binding, or none. Return None if the request goes on.

        Otherwise return the limit set that refuses, WAITING if the request waits for claims, or UNREAD if its body must
        be read first. Raises RejectedError if load is shed, or if the request names two end users.
        """
        binding = self.binding
        assert binding is not None
        limit_set = binding.limit_set
        if limit_set is None and (limit_set := find_limit_set(self, binding)) is None:
            return UNREAD
        pays_credits = self.runtime.overload.shedding and self._check_overload(limit_set)
        traits = limit_set.traits
        if traits.applies:
            admission = admit_fast(limit_set, self.now) if traits.simple else None
            if admission is None:
                if traits.may_ask and (blocking := self._await_claims(limit_set)) is not None:
                    return blocking
                admission = admit(limit_set, self.now, self.exhausted_policies)
                if traits.shares:
                    notify_hosts(limit_set, self.now, admission[0], admission[3])
            refused, shown, left, noted = admission
            if shown is not None:
                self.shown_policy, self.shown_left = shown, left
            if refused:
                return limit_set
            if pays_credits and spend_credits(limit_set, self.now, alone=self.runtime.claim_waiter.is_orphaned):
                self.runtime.metrics.count_credit_spent(binding.tier)
            if traits.has_end_work:
                self.limit_set = limit_set
            if noted is not None:
                self.notes = record_notes(self, noted)
        if binding.rare is not None:
            for counter in binding.rare.admitted_counters:
                counter.add(1)
        return None

    def _stamp(self, data: bytes, end: int) -> None:
        """Join the head for the upstream: kept lines, stamps, request id and trace. Arguments as in `begin`."""
        binding = self.binding
        assert binding is not None
        self.rid, closing = self.runtime.ids.create_ids(self.now + EPOCH)
        if self.head is not PLAIN or binding.terms.has_unusual_head:
            prepare_unusual_head(self, binding, data, end)
        tracer = self.snapshot.tracer
        if tracer is not None:
            if self.trace is not None or closing[SAMPLED_AT] == SAMPLED:
                closing = tracer.begin(self, closing)
        elif self.trace is not None:
            closing = format_trace(self.trace[0], closing[SPAN_ID], self.trace[2])
        before, after = binding.terms.stamps
        forwarded = self.client.forwarded_lines
        lines = (self.request_line, self.keep, before, binding.subject, after, forwarded, self.rid, closing)
        self.message = b"".join(lines)

    def _begin_body(self, data: bytes) -> None:
        """Begin a body, or keep an early request for later; `data` follows the head."""
        assert self.binding is not None
        if (metering := self.binding.metering) is not None:
            admitted = metering.admitted
            self.request_counters = meters.list_counters(admitted, self.get_metered_quotas(), self.runtime)
        self.client.begin_body(self, data)

    # ---- requests out of the ordinary

    def apply_preauth_policy(self, policy: "PreAuthPolicy") -> None:
        """Apply a route's conditions for requests, and answer the requests that it answers itself, before the key is
        read.
        """
        if self.wait is None or self.wait.policy is not policy:
            self.ask_policy(policy)
        if policy.checks_password:
            self.identity = self.snapshot.directory.unverified

    def ask_policy(self, policy: "PreAuthPolicy") -> None:
        """Ask the policy once. Raises RejectedError if it refuses or answers the request."""
        policy.admit(self)
        policy.answer(self)

    def find_preflight_route(self, refusal: RejectedError) -> "Route":
        """Find the route that a preflight asks about if its own method has none.

        Raises `refusal` for other requests.
        """
        if refusal.status != 405 or not self._is_own_preflight():
            raise refusal
        return self.site.match(self.path, find_requested_method(self) or b"", self)

    def _is_own_preflight(self) -> bool:
        """Return whether this is a browser's preflight that the edge answers."""
        return self.answers_preflights and is_preflight(self)

    def _identify(self, identity: "Identity", route: "Route") -> "Identity | None":
        """Identify a sender that the field lines do not identify: by the query, by a certificate, or by a new look-up.

        Return None if the key's owner must be looked up. Raises RejectedError if the query has several keys.
        """
        if route.users is not None:
            return self._identify_user(route.users, route)
        snapshot = self.snapshot
        directory = snapshot.directory
        if identity is directory.anonymous and snapshot.query_key is not None:
            identity = self.identity = directory.resolve(find_key(self.request_line, snapshot.query_key))
            if identity.valid_until >= self.now:
                return identity
        if identity is directory.anonymous and route.takes_certificate:
            identity = self.identity = directory.resolve_certificate(self.client.get_certificate(), self.now)
            if identity.valid_until >= self.now:
                return identity
        return directory.refresh(identity, route, self.now)

    def _identify_user(self, users: "BasicUsers", route: "Route") -> "Identity | None":
        """Identify a user by name and password; return None if the password must be checked.

        Raises UnidentifiedError without valid credentials.
        """
        directory = self.snapshot.directory
        credentials = read_credentials(self.credentials + self.keep)
        if credentials is None and route.cors is None and self._is_own_preflight():
            return directory.browsers
        verdict: bool | None = False
        if credentials is not None and credentials.user:
            verdict = self.runtime.passwords.find_verdict(self._create_question(users, credentials).digest)
            if verdict:
                return directory.get_user(credentials.user.decode())
        if verdict is None:
            return None
        reason: Literal["missing", "password"] = "missing" if credentials is None else "password"
        self.runtime.metrics.count_auth_failure(reason)
        raise users.create_refusal(reason)

    def _create_question(self, users: "BasicUsers", credentials: Credentials) -> Question:
        return self.runtime.passwords.create_question(users.hashes, credentials.user, credentials.password)

    def _check_overload(self, limit_set: LimitSet) -> bool:
        """Raise RejectedError(503) for a request that is shed; the lowest priority is shed first.

        Return True if burst credits shall pay for the request once nothing else refuses it. Only plans without limits
        pay this way.
        """
        runtime, binding = self.runtime, self.binding
        assert binding is not None
        address = self.client.address.subject
        if not runtime.overload.is_full(address):
            if not runtime.overload.should_shed(binding.priority, address):
                return False
            if can_afford(limit_set, self.now, alone=runtime.claim_waiter.is_orphaned):
                return True
        runtime.metrics.count_shed(binding.priority)
        why = OVERLOADED if not isinstance(binding.message, str) else f"{OVERLOADED}. {binding.message}"
        raise RejectedError(503, why, close=False, fields=b"Retry-After: 1\r\n")

    # ---- requests that wait

    def _await_claims(self, limit_set: LimitSet) -> LimitSet | Literal[Progress.WAITING] | None:
        """Check whether other hosts leave room; return None if they do, or if credits pay for the excess.

        Otherwise return WAITING if the request waits for the hub, or the limits that refuse it.
        """
        claim_waiter = self.runtime.claim_waiter
        while (blocking := find_blocking_gate(limit_set, self.now, self.exhausted_policies)) is not None:
            policy, gate = blocking
            if claim_waiter.is_orphaned and gate.mode != "strict" and not gate.is_away:
                return None
            waited = None if self.wait is None else self.wait.claims_seconds
            # The wait for the owner of its key is not part of this.
            seconds = claim_waiter.compute_wait_seconds(gate, self.started + self.waiting_seconds - (waited or 0.0))
            in_vain = seconds <= 0 or claim_waiter.is_orphaned or gate.is_asking_useless(self.now)
            # Waiting requests keep their place. A new request may wait while the queue has room.
            if not in_vain and (waited is not None or gate.waiting < policy.left(self.now)):
                wait = self.wait = self.wait or Wait(self)
                if waited is None:
                    wait.claims_seconds = 0.0
                    self.runtime.metrics.count_limit_wait(policy.name)
                claim_waiter.add_waiter(gate, policy.cost, self, seconds)
                wait.gate = gate
                return WAITING
            gate.record_refusal(self.now)
            if policy is limit_set.traits.credits:
                self.exhausted_policies = list_exhausted(limit_set, self.now, self.exhausted_policies)
                self.shown_policy, self.shown_left = self.exhausted_policies[0], 0
                return limit_set
            self.exhausted_policies = (*self.exhausted_policies, policy)
            if not can_credits_cover(limit_set, self.now, self.exhausted_policies):
                self.shown_policy, self.shown_left = policy, 0
                return limit_set
        return None

    def _await_prompt(self, data: bytes, end: int) -> Outcome:
        """Wait for the body, which states the request's reservation. Then continue."""
        self.wait = self.wait or Wait(self)
        if self.wait.read_prompt(self, data[end + 4 :]):
            return self.proceed(data, end)
        self.suspend(AWAITS_BODY, data, end)
        self.client.deadline = self.waiting_since + self.snapshot.body_idle
        return WAITING

    def _verify_password(self, users: "BasicUsers") -> bytes:
        """Let a user's password be checked. Return the digest of the question. Raises RejectedError as `verify`."""
        credentials = read_credentials(self.credentials + self.keep)
        assert credentials is not None
        question = self._create_question(users, credentials)
        try:
            self.runtime.passwords.verify(question, self, self.started, self.client.address)
        except RejectedError:
            self.runtime.metrics.count_auth_failure("untold")
            raise
        return question.digest

    def _await_identity(self, route: "Route") -> None:
        """Let the request wait for its key's owner, or for the check of its password.

        Raises RejectedError if neither can come in time.
        """
        digest = self._look_up_key(self.identity) if route.users is None else self._verify_password(route.users)
        self.wait = self.wait or Wait(self)
        self.wait.key_digest, self.wait.policy = digest, route.preauth_policy

    def _look_up_key(self, identity: "Identity") -> bytes:
        """Ask the supervisor for the key's owner. Return the key's digest.

        Raises RejectedError(503) if no answer can come in time.
        """
        runtime = self.runtime
        assert isinstance(identity, UnresolvedIdentity)
        seconds = runtime.key_lookup.compute_wait_seconds(self.started)
        address = self.client.address
        if not runtime.key_lookup.look_up(
            identity.digest,
            self,
            seconds,
            subject=address.subject,
            address=address.text,
            is_known=identity.owner is not None,
        ):
            runtime.metrics.count_auth_failure("untold")
            why = "This edge cannot tell at the moment whose this API key is"
            code = problem_codes.CUSTOMER_DATA_UNAVAILABLE
            raise RejectedError(503, why, close=False, fields=b"Retry-After: 1\r\n", code=code)
        return identity.digest

    def suspend(self, state: State, data: bytes, end: int) -> Progress:
        """Keep the request's bytes until `resume`."""
        assert self.wait is not None
        self.state = state
        self.wait.data, self.wait.end = data, end
        if len(data) > UNCOUNTED_BYTES:
            self.client.update_held()
        self.waiting_since = monotonic()
        self.client.deadline = NEVER  # The waiter ends the wait.
        return WAITING

    def resume(self) -> None:
        """Decide again: the hub or the supervisor has answered, or the wait is over."""
        client, runtime, wait = self.client, self.runtime, self.wait
        assert wait is not None
        now = monotonic()
        self.now = now + runtime.offset
        self.waiting_seconds += now - self.waiting_since
        was_at_gate = wait.end_period(self.state, self.waiting_since, now)
        awaited_key = self.state is AWAITS_KEY
        self.state = DECIDING
        # The bytes that came meanwhile belong to its body or to later requests.
        data, client.buffer = wait.data + client.buffer, b""
        wait.data = b""
        outcome: Outcome
        try:
            outcome = (self._resume_identification if awaited_key else self.proceed)(data, wait.end)
        except EdgeError as error:
            outcome = error.with_traceback(None)
        if was_at_gate and wait.gate is None:
            assert wait.claims_seconds is not None
            runtime.metrics.observe_limit_wait(wait.claims_seconds)
        if outcome is FORWARDED:
            client.resume_reading()
        elif outcome is not WAITING:
            client.buffer = client.reject(self, outcome, data, wait.end)
            client.serve_next()

    def _resume_identification(self, data: bytes, end: int) -> Outcome:
        """Continue after the supervisor's answer about the key's owner. Raises the errors that `begin` catches."""
        serving = self.runtime.snapshot
        if self.snapshot is not serving:
            # The old snapshot has released its customers. Only the guard has been charged for the request so far.
            self.snapshot = serving
            self.read_request(data, end)
        unbound = self._find_binding()
        if unbound is not None:
            return self.suspend(AWAITS_KEY, data, end) if unbound is WAITING else unbound
        return self.proceed(data, end)
