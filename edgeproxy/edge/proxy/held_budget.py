"""The memory budget of one worker: the bytes that it holds for clients, and who gives way when there are too many.

A holder is a client's connection, or one stream of HTTP/2. It states how many bytes are held for it: a head that is not
whole, requests and bodies that were read ahead, answers that the client does not take. The bytes count for its HTTP/2
connection, for its address, and for the worker. Each of these has a bound. Beyond a bound, its largest holders are told
to end. Pure: holders do what follows.
"""

from typing import Final, Protocol

CONNECTION_SHARE: Final = 4
"""A connection of HTTP/2 may hold this part of the budget: a quarter."""
ADDRESS_SHARE: Final = 2
"""An address may hold this part of the budget: a half."""
PRESSED_SHARE: Final = 2
"""From this part of a bound on, a half, memory is saved: bodies go to disk."""
RELIEF_SHARE: Final = 8
"""Beyond a bound, this part of it is freed at once, an eighth, so that not each further byte looks for somebody."""

UNCOUNTED_BYTES: Final = 16 << 10
"""Bytes of a request that came with its head and are not counted: an ordinary request asks no budget."""


class Payer(Protocol):
    """The address for which bytes are held."""

    @property
    def subject(self) -> bytes:
        """The address, or the network of IPv6 that counts as one."""


class Holder(Protocol):
    """A client's connection of HTTP/1.1, or a stream of HTTP/2."""

    holding: "Holding | None"
    """Its entry in the budget; None while nothing is held for it. The budget sets it."""

    @property
    def address(self) -> Payer:
        """The address for which the bytes are held: of a trusted proxy's request, that of the proxy's client."""

    @property
    def held_account(self) -> "Account | None":
        """The account of the connection that it shares with other holders; None where it has one for itself."""

    def update_held(self) -> None:
        """State anew how many bytes are held, by `HeldBudget.hold`."""

    def on_held_exhausted(self, share: str) -> None:
        """End what is held; `share` is the exhausted bound: `connection`, `address` or `worker`."""


class Account:
    """The bytes that are held for a connection, or for an address."""

    __slots__ = ("held_bytes", "holdings")

    def __init__(self) -> None:
        self.held_bytes = 0
        self.holdings: dict[Holding, None] = {}


class Holding:
    """The entry of one holder: `held_bytes` of these accounts are its own."""

    __slots__ = ("accounts", "held_bytes", "holder", "subject")

    def __init__(self, holder: Holder, subject: bytes, accounts: tuple[Account, ...]) -> None:
        self.holder, self.subject, self.accounts = holder, subject, accounts
        self.held_bytes = 0


class HeldBudget:
    """The bytes that a worker holds for its clients, `bytes_max` at most."""

    __slots__ = ("_addresses", "bytes_max", "held_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._addresses: dict[bytes, Account] = {}

    def hold(self, holder: Holder, size: int) -> None:
        """Record that `size` bytes in all are held for a holder from now on; 0 ends its entry."""
        holding = holder.holding
        if holding is not None and (not size or holding.subject != holder.address.subject):
            self._remove(holding)
            holding = None
        if not size:
            return
        if holding is None:
            holding = self._add(holder)
        grown = size - holding.held_bytes
        holding.held_bytes = size
        self.held_bytes += grown
        for account in holding.accounts:
            account.held_bytes += grown
        if grown > 0:
            self._enforce(holding)

    def is_pressed(self, holder: Holder) -> bool:
        """Return whether so much is held, by all or by the holder's connection or address, that memory is to be
        saved."""
        if self.held_bytes > self.bytes_max // PRESSED_SHARE:
            return True
        address, connection = self._addresses.get(holder.address.subject), holder.held_account
        return (address is not None and address.held_bytes > self.bytes_max // (ADDRESS_SHARE * PRESSED_SHARE)) or (
            connection is not None and connection.held_bytes > self.bytes_max // (CONNECTION_SHARE * PRESSED_SHARE)
        )

    def refresh(self) -> None:
        """Have all holders state anew what is held for them: sockets take bytes and tell nobody."""
        for account in tuple(self._addresses.values()):
            for holding in tuple(account.holdings):
                if holding.holder.holding is holding:
                    holding.holder.update_held()

    def _add(self, holder: Holder) -> Holding:
        subject, connection = holder.address.subject, holder.held_account
        address = self._addresses.get(subject)
        if address is None:
            address = self._addresses[subject] = Account()
        accounts = (address,) if connection is None else (address, connection)
        holding = holder.holding = Holding(holder, subject, accounts)
        for account in accounts:
            account.holdings[holding] = None
        return holding

    def _remove(self, holding: Holding) -> None:
        holding.holder.holding = None
        self.held_bytes -= holding.held_bytes
        for account in holding.accounts:
            account.held_bytes -= holding.held_bytes
            del account.holdings[holding]
        if not holding.accounts[0].holdings:
            del self._addresses[holding.subject]

    def _enforce(self, holding: Holding) -> None:
        """Have the largest holders end where a bound is exceeded, the narrowest bound first."""
        address, *connections = holding.accounts
        for connection in connections:
            self._relieve(connection, self.bytes_max // CONNECTION_SHARE, "connection")
        self._relieve(address, self.bytes_max // ADDRESS_SHARE, "address")
        if self.held_bytes > self.bytes_max:
            target = self.bytes_max - self.bytes_max // RELIEF_SHARE
            # Whoever has used it up: the addresses that hold most. Each is left half of what it had.
            for account in sorted(self._addresses.values(), key=lambda each: each.held_bytes, reverse=True):
                excess = self.held_bytes - target
                if excess <= 0:
                    break
                self._shrink(account, max(account.held_bytes // 2, account.held_bytes - excess), "worker")

    def _relieve(self, account: Account, bytes_max: int, share: str) -> None:
        if account.held_bytes > bytes_max:
            self._shrink(account, bytes_max - bytes_max // RELIEF_SHARE, share)

    def _shrink(self, account: Account, target: int, share: str) -> None:
        """End the largest holders of an account until it has no more than `target` bytes."""
        for holding in sorted(account.holdings, key=lambda each: each.held_bytes, reverse=True):
            if account.held_bytes <= target:
                break
            self._remove(holding)
            holding.holder.on_held_exhausted(share)
