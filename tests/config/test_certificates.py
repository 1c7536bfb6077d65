"""Certificates and keys in files, and the problems of unusable ones."""

import base64
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edgeproxy.config.certificates import (
    FILE_BYTES_MAX,
    CertificateDetails,
    InvalidCertificateError,
    describe_expiry,
    find_faults,
    read_authorities,
    read_certificate,
)
from edgeproxy.config.edge import certificates as edge_certificates
from edgeproxy.config.edge import load as edge_load
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Items, Table
from loadtest.testbed.authority import Authority, Pair, private
from tests.config.conftest import LEAST

DAY = 86400.0
LISTENER = "listen: [{address: 127.0.0.1:8443, tls: {cert: a.pem, key: a.key}}]\n"


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    """A certificate and its key as `a.pem` and `a.key`, in the current directory."""
    created = authority.issue("api.example.com")
    named = Pair(Path("a.pem"), Path("a.key"))
    created.cert.rename(named.cert)
    created.key.rename(named.key)
    return named


def refused(pair: Pair) -> tuple[str, str, str]:
    with pytest.raises(InvalidCertificateError) as refusal:
        read_certificate(*pair)
    assert str(refusal.value) == f"{refusal.value.what}, {refusal.value.hint}"
    return refusal.value.field, refusal.value.what, refusal.value.hint


# ---- the certificate's contents


def test_names_and_times_are_those_of_the_certificate(authority):
    facts = read_certificate(*authority.issue("api.example.com", "*.example.org", "10.0.0.1", "::1", days=30, age=2))
    assert facts.names == ("api.example.com", "*.example.org", "10.0.0.1", "::1")
    assert facts.not_before == pytest.approx(time.time() - 2 * DAY, abs=60)
    assert facts.not_after == pytest.approx(time.time() + 30 * DAY, abs=60)


def test_certificate_common_name_counts_without_alternative_names(authority):
    assert read_certificate(*authority.issue(common="old.example.com")).names == ("old.example.com",)
    assert read_certificate(*authority.issue("new.example.com", common="old.example.com")).names == ("new.example.com",)
    assert read_certificate(*authority.issue()).names == ()


def test_certificate_with_an_odd_extension_is_accepted(authority):
    odd = x509.UnrecognizedExtension(x509.AuthorityInformationAccess.oid, b"\x04\x03abc")
    facts = read_certificate(*authority.issue(names_as=odd, days=30))
    assert facts.names == ()
    assert facts.not_after == pytest.approx(time.time() + 30 * DAY, abs=60)


def test_the_first_certificate_of_a_chain_is_the_one_that_counts(authority, pair):
    pair.cert.write_bytes(pair.cert.read_bytes() + authority.file.read_bytes())
    assert read_certificate(*pair).names == ("api.example.com",)


def test_certificate_and_key_load_from_one_file(pair):
    both = Path("both.pem")
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    assert read_certificate(both, both).names == ("api.example.com",)


# ---- what cannot be used


@pytest.mark.parametrize("field", ["cert", "key"])
def test_a_file_that_is_not_there(pair, field):
    file = getattr(pair, field)
    file.unlink()
    what = f"{file} cannot be read: No such file or directory"
    assert refused(pair) == (field, what, "name a file that can be read")


def test_a_file_that_is_a_directory(pair):
    assert refused(Pair(Path("."), pair.key))[1] == ". cannot be read: Is a directory"


def test_a_file_that_is_too_large(pair):
    with pair.cert.open("ab") as grown:
        grown.truncate(FILE_BYTES_MAX + 1)
    assert refused(pair) == ("cert", "a.pem is larger than 16 MiB", "name another file")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "has no certificate"),
        (b"\x30\x82\x01", "has no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "has a certificate that cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "has a certificate that cannot be read"),
    ],
)
def test_certificate_file_without_a_certificate_is_refused(pair, content, what):
    pair.cert.write_bytes(content)
    assert refused(pair) == ("cert", f"a.pem {what}", "it is PEM, and begins with -----BEGIN CERTIFICATE-----")


def test_key_in_place_of_the_certificate_is_refused(pair):
    assert refused(Pair(pair.key, pair.key))[:2] == ("cert", "a.key has no certificate")


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\x00\xff"]
)
def test_key_file_without_a_key_is_refused(pair, content):
    pair.key.write_bytes(content)
    what = "a.key has no private key that can be read"
    assert refused(pair) == ("key", what, "it is PEM, and begins with -----BEGIN PRIVATE KEY-----")


def test_a_key_with_a_password_is_not_requested_for_it(pair):
    key = load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pair.key.write_bytes(private(key, "secret"))
    hint = "take the password off it: openssl pkey -in a.key -out FILE"
    assert refused(pair) == ("key", "a.key has a password", hint)


def test_key_of_another_certificate_is_refused(authority, pair):
    other = authority.issue("other.test")
    what = f"{other.key} is not the key of the certificate in a.pem"
    assert refused(Pair(pair.cert, other.key)) == ("key", what, "name the one that it was made for")


def test_a_chain_in_the_wrong_order(authority, pair):
    pair.cert.write_bytes(authority.file.read_bytes() + pair.cert.read_bytes())
    what = "a.pem begins with another certificate than that of a.key"
    assert refused(pair) == ("cert", what, "put that one first")


def test_certificate_with_a_weak_key_is_refused_by_openssl(authority):
    weak = authority.issue("weak.test", key=rsa.generate_private_key(65537, 1024))
    what = f"{weak.cert} is refused by OpenSSL: ee key too small"
    assert refused(weak) == ("cert", what, "have another one made")


def test_a_key_of_a_kind_that_no_one_knows(authority):
    created = authority.issue("a.test", key=ec.generate_private_key(ec.SECP256R1()))
    der = base64.b64decode("".join(created.cert.read_text().split("-----")[2].split()))
    curve = bytes.fromhex("06082a8648ce3d030107")
    at = der.rindex(curve)
    changed = der[:at] + curve[:-1] + b"\x06" + der[at + len(curve) :]
    created.cert.write_bytes(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(changed) + b"-----END CERTIFICATE-----\n"
    )
    field, what, _ = refused(created)
    assert field == "cert"
    assert what.startswith(f"{created.cert} has a key of an unknown kind: ")


def test_authorities_are_certificates_of_any_number(authority, folder):
    read_authorities(authority.file)
    more = folder / "more.pem"
    more.write_bytes(authority.file.read_bytes() + Authority(folder, "other").file.read_bytes())
    read_authorities(more)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "has no certificate that can be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "has no certificate that can be read"),
        (None, "has lists of revoked certificates alone"),
    ],
)
def test_authority_file_without_authorities_is_refused(authority, folder, content, what):
    file = folder / "ca.pem"
    file.write_bytes(authority.revoked() if content is None else content)
    with pytest.raises(InvalidCertificateError) as refusal:
        read_authorities(file)
    assert (refusal.value.field, refusal.value.what) == ("ca", f"{file} {what}")


def test_missing_authority_file_is_refused(folder):
    with pytest.raises(InvalidCertificateError, match="cannot be read: No such file"):
        read_authorities(folder / "nothing")


# ---- time


def test_certificate_expiry_is_described_from_two_weeks_before():
    facts = CertificateDetails((), 1_000 * DAY, 1_090 * DAY)  # until 1972-12-26
    assert describe_expiry(facts, 1_000 * DAY) is None
    assert describe_expiry(facts, 1_076 * DAY) is None
    assert describe_expiry(facts, 1_076 * DAY + 1) == "expires in 13 days, on 1972-12-26"
    assert describe_expiry(facts, 1_090 * DAY - 1) == "expires in 0 days, on 1972-12-26"
    assert describe_expiry(facts, 1_090 * DAY) == "expired on 1972-12-26"
    assert describe_expiry(facts, 1_000 * DAY - 1) == "is not valid before 1972-09-27 00:00 UTC"


# ---- as the configuration names them


def test_check_finds_every_file_that_cannot_be_used(problems, authority, pair):
    other = authority.issue("other.test")
    assert problems(
        f"""\
upstreams:
  api: {{endpoints: [https://127.0.0.1:9001], tls: {{ca: a.key, cert: a.pem, key: {other.key.name}}}}}
routes: [{{path: /*, upstream: api}}]
listen:
  - address: 127.0.0.1:8443
    tls:
      cert: gone.pem
      key: gone.key
      client_ca: gone-ca.pem
      certificates:
        - {{cert: a.pem, key: a.key}}
        - {{cert: a.key, key: a.key}}
  - 127.0.0.1:8080
drain: x
"""
    ) == [
        "edge.yaml:2: upstreams.api.tls.key: other.test-2.key is not the key of the certificate in a.pem, "
        "name the one that it was made for",
        "edge.yaml:2: upstreams.api.tls.ca: a.key has no certificate that can be read, "
        "it is PEM, and begins with -----BEGIN CERTIFICATE-----",
        "edge.yaml:7: listen.0.tls.cert: gone.pem cannot be read: No such file or directory, "
        "name a file that can be read",
        "edge.yaml:8: listen.0.tls.key: gone.key cannot be read: No such file or directory, "
        "name a file that can be read",
        "edge.yaml:9: listen.0.tls.client_ca: gone-ca.pem cannot be read: No such file or directory, "
        "name a file that can be read",
        "edge.yaml:12: listen.0.tls.certificates.1.cert: a.key has no certificate, "
        "it is PEM, and begins with -----BEGIN CERTIFICATE-----",
        "edge.yaml:14: drain: 'x' is not a number with a unit, a time such as 250ms, 5s or 2min",
    ]


def test_trusted_authorities_that_cannot_be_used_are_named_by_their_place(folder, authority):
    tree = Table({"trust": Table({"files": Items([authority.file.name, "gone.pem"])})})
    what = "gone.pem cannot be read: No such file or directory"
    assert list(find_faults(tree)) == [Fault(("trust", "files", 1), what, "name a file that can be read")]


def test_files_that_can_be_used_are_no_problem(loaded, pair, authority):
    settings = loaded(LISTENER)
    assert [
        tuple(each)
        for each in (
            (certificate.cert, certificate.key) for certificate in edge_certificates.list_certificates(settings)
        )
    ] == [tuple(pair)]
    assert edge_certificates.list_authority_files(settings) == []


def test_certificate_check_covers_a_single_listener(problems):
    reported = problems(LEAST + "listen: {address: 127.0.0.1:8443, tls: {cert: a.pem, key: a.key}}\n")
    assert [line.split(": ")[1] for line in reported] == ["listen.tls.cert", "listen.tls.key"]


def test_certificate_check_ignores_malformed_tls_settings(problems):
    for tls in ("x", "[]", "{cert: [a], key: {}}", "{cert: a, certificates: [x]}", "{cert: '', key: ''}"):
        reported = problems(LEAST + f"listen: [{{address: 127.0.0.1:8443, tls: {tls}}}]\n")
        assert reported
        assert not [line for line in reported if "cannot be read" in line]
    assert problems("upstreams: x\nroutes: []\nlisten: [x]\n")


def test_load_without_files_ignores_missing_certificates(folder):
    Path("edge.yaml").write_text(LEAST + LISTENER)
    with pytest.raises(ConfigError):
        edge_load.load_edge(Path("edge.yaml"), {})
    settings = edge_load.load_edge(Path("edge.yaml"), {}, files=False)
    assert settings.listen[0].tls is not None


def test_certificate_list_names_each_file_once(folder):
    tls = "tls: {cert: a.pem, key: a.key, client_ca: ca.pem}"
    more = "tls: {cert: a.pem, key: a.key, certificates: [{cert: b.pem, key: b.key}], client_ca: ca.pem}"
    listeners = f"[{{address: 127.0.0.1:8443, {tls}}}, {{address: 127.0.0.1:8444, {more}}}, 127.0.0.1:80]"
    Path("edge.yaml").write_text(LEAST + f"listen: {listeners}\n")
    settings = edge_load.load_edge(Path("edge.yaml"), {}, files=False)
    assert [certificate.cert for certificate in edge_certificates.list_certificates(settings)] == [
        Path("a.pem"),
        Path("b.pem"),
    ]
    assert edge_certificates.list_authority_files(settings) == [Path("ca.pem")]


def test_certificates_of_upstreams_are_the_edges_own(folder, pair, authority):
    Path("edge.yaml").write_text(
        "upstreams: {api: {endpoints: [https://a.test], tls: {ca: authority.pem, cert: a.pem, key: a.key}}}\n"
        "routes: [{path: /*, upstream: api}]\n"
    )
    settings = edge_load.load_edge(Path("edge.yaml"), {})
    assert [certificate.key for certificate in edge_certificates.list_certificates(settings)] == [pair.key]
    assert edge_certificates.list_authority_files(settings) == [Path("authority.pem")]


def test_worries_name_the_file(loaded, pair, authority):
    now = time.time()
    assert edge_certificates.list_expiry_warnings(loaded(LISTENER), now) == []
    (worried,) = edge_certificates.list_expiry_warnings(loaded(LISTENER), now + 100 * DAY)
    assert worried.startswith("a.pem expired on ")
