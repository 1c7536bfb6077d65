"""The service of gRPC's interoperability tests (grpc.testing.TestService), with its messages.

Numbers and meanings of fields are from grpc/testing/messages.proto, and the methods follow gRPC's
doc/interop-test-descriptions.md.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from loadtest.testbed.ports import HOST

INT32, BYTES, STRING = 5, 12, 9
Field = tuple[str, int, int | str, bool]
"""A name, a number, a scalar type or the name of a message, and whether it is repeated."""

MESSAGES: Final[dict[str, list[Field]]] = {
    "Empty": [],
    "Payload": [("type", 1, INT32, False), ("body", 2, BYTES, False)],
    "EchoStatus": [("code", 1, INT32, False), ("message", 2, STRING, False)],
    "SimpleRequest": [
        ("response_size", 2, INT32, False),
        ("payload", 3, "Payload", False),
        ("response_status", 7, "EchoStatus", False),
    ],
    "SimpleResponse": [("payload", 1, "Payload", False)],
    "StreamingInputCallRequest": [("payload", 1, "Payload", False)],
    "StreamingInputCallResponse": [("aggregated_payload_size", 1, INT32, False)],
    "ResponseParameters": [("size", 1, INT32, False), ("interval_us", 2, INT32, False)],
    "StreamingOutputCallRequest": [
        ("response_parameters", 2, "ResponseParameters", True),
        ("payload", 3, "Payload", False),
        ("response_status", 7, "EchoStatus", False),
    ],
    "StreamingOutputCallResponse": [("payload", 1, "Payload", False)],
}


def create_messages() -> dict[str, Any]:
    """Return the classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="interop.proto", package="grpc.testing", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if isinstance(kind, str):
                added.type, added.type_name = 11, f".grpc.testing.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.testing.{name}")) for name in MESSAGES
    }


CLASSES: Final = create_messages()
SERVICE: Final = "grpc.testing.TestService"
METHODS: Final = {
    "EmptyCall": ("unary_unary", "Empty", "Empty"),
    "UnaryCall": ("unary_unary", "SimpleRequest", "SimpleResponse"),
    "StreamingOutputCall": ("unary_stream", "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "StreamingInputCall": ("stream_unary", "StreamingInputCallRequest", "StreamingInputCallResponse"),
    "FullDuplexCall": ("stream_stream", "StreamingOutputCallRequest", "StreamingOutputCallResponse"),
    "UnimplementedCall": ("unary_unary", "Empty", "Empty"),
}
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


def create(name: str, **fields: Any) -> Any:
    return CLASSES[name](**fields)


def create_payload(size: int) -> Any:
    return create("Payload", body=bytes(size))


def echo_metadata(context: Any) -> None:
    """Send back the metadata of the case custom_metadata."""
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
    if TRAILING in sent:
        context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))


def echo_status(request: Any, context: Any) -> None:
    if request.response_status.code:
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.abort(codes[request.response_status.code], request.response_status.message)


class TestService:
    """The methods of the service."""

    __test__ = False  # pytest must not collect it.

    def EmptyCall(self, request: Any, context: Any) -> Any:
        return create("Empty")

    def UnaryCall(self, request: Any, context: Any) -> Any:
        echo_metadata(context)
        echo_status(request, context)
        return create("SimpleResponse", payload=create_payload(request.response_size))

    def StreamingOutputCall(self, request: Any, context: Any) -> Iterator[Any]:
        echo_status(request, context)
        for response_parameter in request.response_parameters:
            time.sleep(response_parameter.interval_us / 1e6)  # The protocol of the cases has it.
            yield create("StreamingOutputCallResponse", payload=create_payload(response_parameter.size))

    def StreamingInputCall(self, requests: Iterator[Any], context: Any) -> Any:
        size = sum(len(request.payload.body) for request in requests)
        return create("StreamingInputCallResponse", aggregated_payload_size=size)

    def FullDuplexCall(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        echo_metadata(context)
        for request in requests:
            yield from self.StreamingOutputCall(request, context)


class InteropServer:
    """A server of the service."""

    def __init__(self) -> None:
        service = TestService()
        handlers = {}
        for name, (kind, request, response) in METHODS.items():
            if method := getattr(service, name, None):
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                serialize = CLASSES[response].SerializeToString
                handlers[name] = make(method, CLASSES[request].FromString, serialize)
        self.grpc = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self.grpc.add_insecure_port(f"{HOST}:0")
        self.grpc.start()

    def close(self) -> None:
        """Stop the server at once."""
        self.grpc.stop(0).wait()


def open_method(channel: grpc.Channel, name: str, service: str = SERVICE) -> Any:
    """Return a method of the service for a client."""
    kind, request, response = METHODS[name]
    serialize = CLASSES[request].SerializeToString
    return getattr(channel, kind)(f"/{service}/{name}", serialize, CLASSES[response].FromString)
