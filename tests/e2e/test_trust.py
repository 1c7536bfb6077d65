"""Each outgoing TLS connection trusts the site's authority, and no other one. See docs/operations/outgoing-calls.md."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

from edgeproxy.base import trust
from edgeproxy.base.client_tls import ClientTls
from edgeproxy.config.tls import UpstreamTls
from loadtest.testbed.authority import Authority
from tests.support.documented_tables import read_table
from tests.support.tls_peers import (
    LASTING,
    NO_FILES,
    OWN_CALLS,
    PRESENTING,
    TRUST_ROWS,
    TRUSTING,
    UNVERIFYING,
    TlsPeer,
    build_aws_environment,
)

PAGE = Path(__file__).parents[2] / "docs/operations/outgoing-calls.md"
NAME = "localhost"
ACCEPT_COMMON_NAMES = frozenset(("traces over gRPC", "AWS KMS"))
"""Calls whose library accepts a common name if there is no `subjectAltName`, as the page says."""
SECONDS_MAX = 60.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one authority in the place of the system's: each call would take 30 ms to read them."""
    return Authority(tmp_path_factory.mktemp("system")).file


@pytest.fixture(autouse=True)
def _own_trust(system: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SSL_CERT_DIR", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    yield
    trust.set_trust(())


def call(name: str, port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a call. Return its result, or its error as text."""
    url = f"https://{NAME}:{port}"
    for variable, value in build_aws_environment(url).items():
        monkeypatch.setenv(variable, value)

    async def run() -> str:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return repr(await TRUSTING[name](url))
        except Exception as error:
            return f"{error!r} {error}"

    return asyncio.run(run())


@pytest.mark.parametrize("name", TRUSTING)
def test_call_trusts_the_authority_of_the_variable(
    name: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with TlsPeer(authority.issue(NAME)) as peer:
        result = call(name, peer.port, monkeypatch)
    assert peer.heard, result


@pytest.mark.parametrize("name", TRUSTING)
def test_call_refuses_another_name(name: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.set_trust([authority.file])
    with TlsPeer(authority.issue("other.test")) as peer:
        call(name, peer.port, monkeypatch)
    assert not peer.heard


def replace(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.replace(file)


@pytest.mark.parametrize("name", TRUSTING)
def test_call_refuses_another_authority_until_the_file_is_replaced(
    name: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site's authorities are trusted beside the system's."""
    monkeypatch.delenv("SSL_CERT_FILE")
    file = tmp_path / "trusted.pem"
    file.write_bytes(Authority(tmp_path, "theirs").file.read_bytes())
    trust.set_trust([file])
    with TlsPeer(authority.issue(NAME)) as peer:
        result = call(name, peer.port, monkeypatch)
        assert not peer.heard
        assert any(word in result.lower() for word in ("certificate", "unreadable", "error sending request")), result
        replace(file, authority.file.read_bytes())
        result = call(name, peer.port, monkeypatch)
    assert peer.heard, result


@pytest.mark.parametrize("name", LASTING)
def test_client_that_lasts_follows_a_file_that_is_replaced(
    name: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection trusts the new authority, and no longer the old one."""
    ours, theirs = authority.file.read_bytes(), Authority(tmp_path, "theirs").file.read_bytes()
    file = tmp_path / "trusted.pem"
    file.write_bytes(theirs)
    trust.set_trust([file])

    async def run(peer: TlsPeer) -> None:
        async with LASTING[name](f"https://{NAME}:{peer.port}", monkeypatch) as use:
            for content in (theirs, ours, theirs):
                replace(file, content)
                peer.heard.clear()
                with suppress(Exception):
                    await use()
                assert bool(peer.heard) == (content == ours)

    with TlsPeer(authority.issue(NAME)) as peer:
        asyncio.run(run(peer))


@pytest.mark.parametrize("name", PRESENTING)
def test_call_presents_its_own_certificate(name: str, tmp_path: Path, authority: Authority) -> None:
    trust.set_trust([authority.file])
    (tmp_path / "clients").mkdir()
    clients = Authority(tmp_path / "clients")
    own, wrong = clients.issue("client"), authority.issue("client")
    with TlsPeer(authority.issue(NAME), clients.file) as peer:
        for pair, calls in ((None, 0), (wrong, 0), (own, 1)):
            call_with_own(name, peer.port, NO_FILES if pair is None else UpstreamTls(cert=pair.cert, key=pair.key))
            assert len(peer.heard) == calls, (name, pair)


def call_with_own(name: str, port: int, tls: UpstreamTls) -> None:
    """Make a call with its own TLS settings. Its result does not matter."""

    async def run() -> None:
        with suppress(Exception):
            async with asyncio.timeout(SECONDS_MAX):
                await OWN_CALLS[name](f"https://{NAME}:{port}", tls)

    asyncio.run(run())


@pytest.mark.parametrize("name", OWN_CALLS)
def test_authorities_of_a_call_replace_those_of_the_site(
    name: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An own authority replaces the site's. For `probe` it is added to the site's."""
    ours, theirs = authority, Authority(tmp_path, "theirs")
    for variable, value in build_aws_environment("").items():
        monkeypatch.setenv(variable, value)
    for own, site, is_accepted in ((ours, theirs, True), (theirs, ours, name == "probe")):
        trust.set_trust([site.file])
        monkeypatch.setenv("AWS_CA_BUNDLE", str(own.file))
        with TlsPeer(ours.issue(NAME)) as peer:
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"https://{NAME}:{peer.port}")
            call_with_own(name, peer.port, UpstreamTls(ca=own.file))
            assert bool(peer.heard) == is_accepted


@pytest.mark.parametrize("name", UNVERIFYING)
def test_call_without_verification_accepts_any_certificate(name: str, authority: Authority) -> None:
    with TlsPeer(authority.issue("other.test")) as peer:
        call_with_own(name, peer.port, UpstreamTls(verify=False))
    assert peer.heard


@pytest.mark.parametrize("name", TRUSTING)
def test_common_name_is_no_name_of_the_server(name: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    trust.set_trust([authority.file])
    with TlsPeer(authority.issue(common=NAME)) as peer:
        call(name, peer.port, monkeypatch)
    assert bool(peer.heard) == (name in ACCEPT_COMMON_NAMES)


def test_each_row_of_the_documented_table_is_tried() -> None:
    """The cells of a row name the kinds of TLS settings that the call has."""
    rows = {cells[0]: cells[1:] for cells in read_table(PAGE.read_text(), "connection")}
    assert rows.keys() == TRUST_ROWS.keys()
    assert sorted(chain.from_iterable(TRUST_ROWS.values())) == sorted(TRUSTING)
    for row, names in TRUST_ROWS.items():
        for cell, tried in zip(rows[row], (OWN_CALLS, PRESENTING, UNVERIFYING), strict=True):
            assert (cell != "–") == any(name in tried for name in names), (row, cell)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    trust.set_trust([file])
    for use in (trust.create_context, trust.read_bundle, lambda: ClientTls(UpstreamTls())):
        with pytest.raises(trust.TlsFilesError, match=f"the authorities {file}"):
            use()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_variable_of_a_missing_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL reports nothing, and then trusts no authority."""
    monkeypatch.setenv(name, str(tmp_path / "missing"))
    with pytest.raises(trust.TlsFilesError, match=f"of {name} are not there"):
        trust.create_context()


def test_path_of_all_authorities_stays_when_they_change(tmp_path: Path) -> None:
    """Libraries open it for each connection, as long as their client lives."""
    first, second = (Authority(tmp_path, name) for name in ("first", "second"))
    trusted = tmp_path / "trusted.pem"
    trust.set_trust([trusted])
    paths = []
    for each in (first, second):
        trusted.write_bytes(each.file.read_bytes())
        paths.append(trust.write_bundle())
        assert each.file.read_bytes() in Path(paths[0]).read_bytes()
    assert paths[0] == paths[1]


def test_killed_process_leaves_no_authorities(tmp_path: Path, authority: Authority) -> None:
    """Its child processes can read the file while it lives."""
    code = (
        "import os, subprocess, sys; from pathlib import Path; from edgeproxy.base import trust\n"
        "trust.set_trust([Path(sys.argv[1])])\n"
        "print(subprocess.check_output(['cat', trust.write_bundle()]) == trust.read_bundle(), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    environ = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-c", code, str(authority.file)]
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-9, b"True\n"), done.stderr
    assert not list((tmp_path / "temporary").iterdir())
