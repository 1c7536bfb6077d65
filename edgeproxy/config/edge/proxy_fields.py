"""Request fields that services trust, because they assume that a proxy in front of them has set them.

Whoever may send one of them chooses the route, the user or the origin of a request, past every rule of the edge. So
they are accepted from trusted proxies only. The stamps, and the fields that the edge itself reads or writes, have their
own rules in edge/http1/fields.py.
"""

from collections.abc import Callable
from typing import Final, NamedTuple


class Group(NamedTuple):
    """Fields with one kind of meaning."""

    about: str
    names: tuple[str, ...]
    """Field names in lower case. A trailing `*` makes a name a prefix."""


GROUPS: Final = (
    Group(
        "what is asked for",
        (
            *("x-forwarded-*", "x-original-*", "x-rewrite-url", "x-override-url", "x-replaced-path", "x-envoy-*"),
            *("x-http-method-override", "x-http-method", "x-method-override", "x-host", "x-http-host-override"),
            *("x-scheme", "x-url-scheme", "front-end-https", "x-arr-*", "disguised-host", "x-waws-unencoded-url"),
            *("script-name", "x-script-name", "path-info", "x-middleware-subrequest"),
            *("x-sendfile-type", "x-accel-mapping"),
        ),
    ),
    Group(
        "who asks",
        (
            *("remote-*", "x-remote-*", "x-auth-request-*", "x-authenticated-*", "x-webauth-*", "x-userinfo"),
            *("x-authentik-*", "x-pomerium-*", "x-vouch-*", "oidc-claim-*", "iv-user", "iv-groups", "iv-creds"),
            *("sm-user", "sm-universalid", "x-consumer-*", "x-credential-*", "x-anonymous-consumer"),
            *("x-amzn-oidc-*", "x-goog-authenticated-user-*", "x-goog-iap-*", "x-ms-client-principal*"),
            *("x-ms-token-*", "cf-access-authenticated-*", "cf-access-jwt-assertion"),
        ),
    ),
    Group(
        "with which certificate",
        (
            "client-cert",
            "client-cert-chain",
            "x-client-cert*",
            "ssl-client-*",
            "x-ssl-*",
            "x-tls-client-*",
            "x-amzn-mtls-*",
        ),
    ),
    Group(
        "from where",
        (
            *("x-real-*", "x-client-ip", "client-ip", "true-client-ip", "x-cluster-client-ip", "x-originating-ip"),
            *("x-proxyuser-ip", "proxy-client-ip", "wl-proxy-*", "cf-connecting-*", "cf-pseudo-*", "cf-ip*"),
            *("cf-visitor", "fastly-client-ip", "fastly-ssl", "fly-client-ip", "cloudfront-*", "x-azure-clientip"),
            *("x-azure-socketip", "x-appengine-*", "x-vercel-ip-*", "x-vercel-forwarded-for"),
            *("x-vercel-proxied-for", "x-nf-client-connection-ip", "ali-cdn-real-ip"),
        ),
    ),
)
"""The names come from proxies, identity-aware proxies, content delivery networks and frameworks."""


def create_matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a function that tells whether a name in lower case matches a pattern. A trailing `*` matches any rest."""
    exact_names = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    return lambda name: name in exact_names or name.startswith(prefixes)


is_proxy_field: Final = create_matcher(tuple(name for group in GROUPS for name in group.names))
"""Returns whether a name in lower case is in the table."""


def has_proxy_field(pattern: str) -> bool:
    """Return whether a pattern matches a name or a prefix of the table."""
    if not pattern.endswith("*"):
        return is_proxy_field(pattern)
    begins = pattern[:-1]
    return is_proxy_field(begins) or any(name.startswith(begins) for group in GROUPS for name in group.names)
