"""The memory budget of one worker: it bounds the bytes that the worker holds for its clients.

A holder is a client's HTTP/1.1 connection or one HTTP/2 stream. It reports how many bytes the worker holds for it:
incomplete heads, requests and bodies read ahead, and answers that the client does not read. The bytes count for the
holder's HTTP/2 connection, for its client's address, and for the worker. Each of these three has a bound. When a bound
is exceeded, the budget tells the largest holders to release their bytes. The budget itself does no I/O.
"""

from typing import Final, Protocol

CONNECTION_SHARE: Final = 2
"""A divisor of the budget: an HTTP/2 connection may hold a half."""
ADDRESS_SHARE: Final = 2
"""A divisor of the budget: an address may hold a half."""
PRESSED_SHARE: Final = 4
"""A divisor of a bound: beyond a quarter of it the worker saves memory, and bodies go to disk."""
RELIEF_SHARE: Final = 8
"""A divisor of a bound: when the bound is exceeded, an eighth of it is freed as well. Otherwise each further byte would
trigger another search for the largest holders."""

UNCOUNTED_BYTES: Final = 16 << 10
"""A request that arrives with its head does not count up to this many bytes. So an ordinary request uses no budget."""


class Payer(Protocol):
    """The address that held bytes count for."""

    @property
    def subject(self) -> bytes:
        """The address, or the IPv6 network that counts as one address."""


class Holder(Protocol):
    """A client's HTTP/1.1 connection, or an HTTP/2 stream."""

    holding: "Holding | None"
    """The holder's entry in the budget; None while no bytes are held for it. The budget sets it."""

    @property
    def address(self) -> Payer:
        """The address that the bytes count for. A trusted proxy's request counts for the proxy's client."""

    @property
    def held_account(self) -> "Account | None":
        """The account of the connection that the holder shares with other holders; None if it shares none."""

    def update_held(self) -> None:
        """Report the current number of held bytes with `HeldBudget.hold`."""

    def on_held_exhausted(self, share: str) -> None:
        """Release the held bytes. `share` names the exceeded bound: `connection`, `address` or `worker`."""


class Account:
    """The bytes held for one connection or one address."""

    __slots__ = ("held_bytes", "holdings")

    def __init__(self) -> None:
        self.held_bytes = 0
        self.holdings: dict[Holding, None] = {}


class Holding:
    """The budget entry of one holder. Each of its `accounts` includes its `held_bytes`."""

    __slots__ = ("accounts", "held_bytes", "holder", "subject")

    def __init__(self, holder: Holder, subject: bytes, accounts: tuple[Account, ...]) -> None:
        self.holder, self.subject, self.accounts = holder, subject, accounts
        self.held_bytes = 0


class HeldBudget:
    """The bytes that a worker holds for its clients: at most `bytes_max`."""

    __slots__ = ("_addresses", "bytes_max", "held_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._addresses: dict[bytes, Account] = {}

    def hold(self, holder: Holder, size: int) -> None:
        """Record that the worker now holds `size` bytes in total for a holder. 0 removes the holder's entry."""
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
        """Return whether the worker must save memory for this holder.

        It must if the worker, the holder's address or the holder's connection has more than a quarter of its bound.
        """
        if self.held_bytes > self.bytes_max // PRESSED_SHARE:
            return True
        address, connection = self._addresses.get(holder.address.subject), holder.held_account
        return (address is not None and address.held_bytes > self.bytes_max // (ADDRESS_SHARE * PRESSED_SHARE)) or (
            connection is not None and connection.held_bytes > self.bytes_max // (CONNECTION_SHARE * PRESSED_SHARE)
        )

    def refresh(self) -> None:
        """Make all holders report their bytes again, because a socket that sends bytes does not notify the budget."""
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
        """Make the largest holders of each exceeded bound release their bytes. The narrowest bound comes first."""
        address, *connections = holding.accounts
        for connection in connections:
            self._relieve(connection, self.bytes_max // CONNECTION_SHARE, "connection")
        self._relieve(address, self.bytes_max // ADDRESS_SHARE, "address")
        if self.held_bytes > self.bytes_max:
            target = self.bytes_max - self.bytes_max // RELIEF_SHARE
            # The addresses that hold the most bytes have used up the budget. Each keeps at least half of its bytes.
            for account in sorted(self._addresses.values(), key=lambda address: address.held_bytes, reverse=True):
                excess = self.held_bytes - target
                if excess <= 0:
                    break
                self._shrink(account, max(account.held_bytes // 2, account.held_bytes - excess), "worker")

    def _relieve(self, account: Account, bytes_max: int, share: str) -> None:
        if account.held_bytes > bytes_max:
            self._shrink(account, bytes_max - bytes_max // RELIEF_SHARE, share)

    def _shrink(self, account: Account, target: int, share: str) -> None:
        """Make the largest holders of an account release their bytes until the account has at most `target` bytes."""
        for holding in sorted(account.holdings, key=lambda holding: holding.held_bytes, reverse=True):
            if account.held_bytes <= target:
                break
            self._remove(holding)
            holding.holder.on_held_exhausted(share)
