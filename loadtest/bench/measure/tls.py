"""The cost of TLS: full and resumed handshakes, idle connections, and requests with and without TLS."""

import datetime
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from loadtest.bench.load import wrk
from loadtest.bench.measure import cpu, memory
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS, SMALL_ANSWER
from loadtest.bench.stage import Stage

HANDSHAKES = 500
RELAYED = ("small", "64k", "1m")

_KEYS: dict[str, Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {
    "ECDSA P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
}


@dataclass(frozen=True)
class Tls:
    """One peer with one certificate. CPU in µs of the serving processes.

    `full` and `resumed`: a connection with such a handshake, one request, and its end. `relay`: by scenario, a
    request on a persistent connection, with TLS and without. `connection`: bytes of memory of an idle one; 0 if not
    measured.
    """

    peer: str
    certificate: str
    full: float
    resumed: float
    connection: float = 0.0
    relay: dict[str, tuple[float, float]] = field(default_factory=dict)


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Tls], dict[str, str]]:
    """Return the cost of TLS of each capable peer, and by name the reason why a peer was left out."""
    found: list[Tls] = []
    failures: dict[str, str] = {}
    memory.allow_files(2 * stage.options.idle)
    for kind in _KEYS:
        certificate = create_certificate(stage.folder, kind)
        for peer in peers:
            say(f"TLS, {kind}: {peer.name}")
            try:
                with stage.serving(peer, certificate=certificate) as running:
                    if running.secure_port:
                        # Figures that do not depend on the certificate are measured once.
                        found.append(_of_peer(stage, peer.name, kind, running, all_of_it=kind == next(iter(_KEYS))))
            except (OSError, RuntimeError, ValueError) as error:
                failures[peer.name] = f"TLS: {error}"
    return found, failures


def _of_peer(stage: Stage, name: str, kind: str, running: Running, *, all_of_it: bool) -> Tls:
    full, resumed = (_handshakes(running, resumed=resumed) for resumed in (False, True))
    if not all_of_it:
        return Tls(name, kind, full, resumed)
    # First, for what large answers have left behind would serve connections for nothing.
    idle = _idle(running, stage.options.idle)
    relay = {scenario: _relay(stage, running, scenario) for scenario in RELAYED if scenario in stage.options.scenarios}
    return Tls(name, kind, full, resumed, idle, relay)


def _handshakes(running: Running, *, resumed: bool) -> float:
    """Return the CPU of successive connections."""
    context = _trusting()
    session = _connected(running, context).session if resumed else None
    before = cpu.of_processes(running.workers())
    for _ in range(HANDSHAKES):
        connection = _connected(running, context, session)
        if connection.session_reused is not resumed:
            raise RuntimeError(f"a handshake was {'not ' if resumed else ''}resumed")
        session = connection.session if resumed else None
        connection.close()
    return cpu.between(before, cpu.of_processes(running.workers())).ran / 1000 / HANDSHAKES


def _idle(running: Running, idle: int) -> float:
    """Return the bytes of an idle connection after its first answer, beyond the memory left by two hundred earlier
    ones.
    """
    context = _trusting()
    for _ in range(200):
        _connected(running, context).close()
    before = memory.of_processes(running.workers())
    kept = [_connected(running, context, source=memory.get_address(number)) for number in range(idle)]
    after = memory.of_processes(running.workers())
    memory.require_open(kept)
    for connection in kept:
        connection.close()
    return (after.private - before.private) / idle


def _relay(stage: Stage, running: Running, name: str) -> tuple[float, float]:
    return _slice(stage, running, name, "https", running.secure_port), _slice(
        stage, running, name, "http", running.port
    )


def _slice(stage: Stage, running: Running, name: str, scheme: str, port: int) -> float:
    options = stage.options
    before = cpu.of_processes(running.workers())
    load = wrk.run(
        SCENARIOS[name],
        port,
        seconds=options.seconds,
        connections=options.connections,
        core=options.load_core,
        folder=stage.folder,
        scheme=scheme,
    )
    if load.failed or load.refused:
        raise RuntimeError(f"{name}: {load.failed} connections failed, {load.refused} requests were refused")
    return cpu.between(before, cpu.of_processes(running.workers())).ran / 1000 / load.requests


def _connected(
    running: Running, context: ssl.SSLContext, session: ssl.SSLSession | None = None, source: str = "127.0.0.1"
) -> ssl.SSLSocket:
    """Return a connection after its first answer; its session tickets have arrived too."""
    plain = socket.create_connection(("127.0.0.1", running.secure_port), timeout=5, source_address=(source, 0))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = context.wrap_socket(plain, server_hostname="bench.test", session=session)
    connection.sendall(SCENARIOS["small"].text().encode())
    answer = b""
    while not answer.endswith(SMALL_ANSWER):
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"closed a connection: {answer[:200]!r}")
        answer += piece
    return connection


def _trusting() -> ssl.SSLContext:
    """Return a client context that accepts every certificate: the client is not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def create_certificate(folder: Path, kind: str) -> tuple[Path, Path]:
    """Create a self-signed certificate; return its file and its key's file."""
    key = _KEYS[kind]()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("bench.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / f"{kind[:3]}.crt", folder / f"{kind[:3]}.key"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return cert, private
