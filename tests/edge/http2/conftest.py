"""An invariant of all HTTP/2 tests: a remembered head equals the head that a reader would produce."""

from collections.abc import Iterator

import pytest

from edgeproxy.edge.http2 import head_reader
from edgeproxy.edge.http2.errors import Http2Error
from edgeproxy.edge.http2.head_reader import FIELDS_OF_LINE, HeadReader
from edgeproxy.edge.http2.hpack import HpackDecoder
from edgeproxy.edge.http2.request import OVERSIZED_LENGTH, format_head


class CheckedReader(HeadReader):
    """Reads each block a second time, with a table of its own and without a memory."""

    def __init__(self, limits, *, websockets):
        super().__init__(limits, websockets=websockets)
        self.second = HpackDecoder(limits.fields + FIELDS_OF_LINE, limits.head)
        self.limits, self.offers = limits, websockets

    def read_head(self, block, *, ended):
        expected, failure = None, None
        try:
            expected = format_head(self.second.decode(block), ended=ended, websockets=self.offers)
            if len(expected[0]) - 4 > self.limits.head:
                expected = (expected[0], OVERSIZED_LENGTH)
        except Http2Error as error:
            failure = (type(error), error.detail)
        try:
            head = super().read_head(block, ended=ended)
        except Http2Error as error:
            if (type(error), error.detail) != failure:
                raise AssertionError(f"{error!r} instead of {failure}") from error
            raise
        assert head == expected
        return head

    def read_trailers(self, block):
        self._decode_too(block)
        return super().read_trailers(block)

    def skip(self, block):
        self._decode_too(block)
        super().skip(block)

    def skip_part(self, part, *, begins):
        rest = super().skip_part(part, begins=begins)
        self._decode_too(part[: len(part) - len(rest)])
        return rest

    def _decode_too(self, block):
        try:
            self.second.decode(block)
        except Http2Error:
            pass  # The first one says so.


@pytest.fixture(autouse=True, scope="session")
def _each_head_is_read_twice() -> Iterator[None]:
    from edgeproxy.edge.http2 import connection

    assert connection.HeadReader is head_reader.HeadReader
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HeadReader", CheckedReader)
        yield
