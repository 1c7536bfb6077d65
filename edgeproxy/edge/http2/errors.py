"""The errors of HTTP/2: codes (RFC 9113 section 7), and the two extents of an error: stream or connection (section
5.4).
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """The error codes of RST_STREAM and GOAWAY frames."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def format_code(code: int) -> str:
    """Format an error code as a label; an unregistered one as `_OTHER`."""
    return ErrorCode(code).name if code <= ErrorCode.HTTP_1_1_REQUIRED else "_OTHER"


class Http2Error(Exception):
    """A breach of a rule by the peer. `section` names the place of the rule: in RFC 9113 unless it names another."""

    def __init__(self, code: ErrorCode, detail: str, section: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.section = section if section[0].isalpha() else f"RFC 9113 section {section}"


class Http2ConnectionError(Http2Error):
    """An error that ends the connection: GOAWAY with its code (section 5.4.1)."""


class Http2StreamError(Http2Error):
    """An error that ends one stream: RST_STREAM with its code (section 5.4.2)."""


class CompressionError(Http2ConnectionError):
    """A field block that cannot be read: from now on the table that the peer fills is unknown (section 4.3)."""

    def __init__(self, detail: str, section: str) -> None:
        super().__init__(ErrorCode.COMPRESSION_ERROR, detail, f"RFC 7541 section {section}")


def create_protocol_error(detail: str, section: str) -> Http2ConnectionError:
    """Return a connection error PROTOCOL_ERROR."""
    return Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, detail, section)


def create_size_error(detail: str, section: str) -> Http2ConnectionError:
    """Return a connection error FRAME_SIZE_ERROR."""
    return Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, detail, section)


def create_window_error(detail: str, section: str) -> Http2ConnectionError:
    """Return a connection error FLOW_CONTROL_ERROR."""
    return Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, detail, section)


def create_calm_error(detail: str, section: str = "10.5") -> Http2ConnectionError:
    """Return a connection error ENHANCE_YOUR_CALM."""
    return Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, detail, section)


def create_malformed_error(detail: str, section: str) -> Http2StreamError:
    """Return the stream error of a malformed message (section 8.1.1)."""
    return Http2StreamError(ErrorCode.PROTOCOL_ERROR, detail, section)
