"""Certificates by ACME: the settings that `check` refuses, and the path of the certificate."""

from pathlib import Path

import pytest

from edgeproxy.config.edge import references
from tests.config.conftest import LEAST

PLAIN = "listen:\n- 0.0.0.0:80\n"
TERMS = "terms_accepted: true"


@pytest.fixture
def reads_files():
    return False


def list_problems(problems, acme, *, more="", listen=PLAIN):
    """Return the problems of these settings of `acme`, without their lines."""
    text = f"{LEAST}{listen}- {{address: '0.0.0.0:443', tls: {{acme: {{{acme}}}{more}}}}}\n"
    return [problem.partition(" ")[2] for problem in problems(text)]


def test_names_make_the_file_of_a_certificate(loaded):
    def file(acme):
        text = f"listen: {{address: '0.0.0.0:443', tls: {{acme: {{{acme}, {TERMS}}}}}}}\n"
        (listener,) = loaded(text).listen
        (pair,) = listener.tls.list_pairs(Path("state"))
        assert pair.cert == pair.key
        return pair.cert

    two = file("domains: [API.example.com., www.example.com]")
    assert two.parent == Path("state/acme")
    assert two.name.startswith("api.example.com-")
    assert file("domains: [api.example.com, www.example.com], email: ops@example.com") == two
    others = ("domains: api.example.com", "domains: [api.example.com, www.example.com], directory: 'https://ca.test/a'")
    assert len({two, *map(file, others)}) == 3


@pytest.mark.parametrize(
    ("acme", "what"),
    [
        (f"domains: ['*.example.com'], {TERMS}", "needs a challenge over DNS"),
        (f"domains: [10.0.0.1], {TERMS}", "is an IP address"),
        (f"domains: ['[::1]'], {TERMS}", "is an IP address"),
        (f"domains: [a_b!], {TERMS}", "is not a host name"),
        (f"domains: [], {TERMS}", "domains"),
        (f"domains: [a.test, A.test], {TERMS}", "is named already at"),
        (f"domains: {{a: b}}, {TERMS}", "domains"),
        (f"domains: a.test, email: 'a b', {TERMS}", "is not a mail address"),
        (f"domains: a.test, directory: 'http://ca.test/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'ftp://localhost/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'https://[::1/', {TERMS}", "is not the URL"),
        (f"domains: a.test, directory: 'https://user@ca.test/', {TERMS}", "is not the URL"),
        ("domains: a.test, terms_accepted: false", "an authority issues nothing without it"),
        ("domains: a.test", "terms_accepted"),
    ],
)
def test_settings_that_are_refused(problems, acme, what):
    (problem,) = list_problems(problems, acme)
    assert what in problem


def test_files_beside_it_are_refused(problems):
    acme = f"domains: a.test, {TERMS}"
    assert list_problems(problems, acme) == list_problems(problems, acme, listen="listen:\n") == []
    for more in (", cert: a.pem, key: a.key", ", certificates: [{cert: a.pem, key: a.key}]"):
        faults = list_problems(problems, acme, more=more)
        assert faults
        assert all("stands beside acme" in fault for fault in faults)


def test_listener_that_can_answer_is_required(problems):
    asking = f"domains: a.test, {TERMS}}}}}, authorize: path"
    text = f"{LEAST}trusted_proxies: [10.0.0.1]\nlisten: {{address: '0.0.0.0:443', tls: {{acme: {{{asking}}}\n"
    (problem,) = problems(text)
    assert "has no listener that can answer a challenge" in problem


def test_missing_packages_are_named(problems, monkeypatch):
    monkeypatch.setattr(references, "is_installed", lambda name: False)
    (problem,) = list_problems(problems, f"domains: a.test, {TERMS}")
    assert problem.endswith("pip install 'edgeproxy[acme]'")
