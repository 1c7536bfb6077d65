"""Secrets in variables and files. All of them are read here.

A line end at the end of a file is not part of its secret, because editors and `echo` write one. Any other addition of a
password manager, a shell or a template, for example quotes or a second line, is refused. It is never repaired, because
other software that reads the file might repair it differently.
"""

from collections.abc import Mapping
from pathlib import Path

SECRET_BYTES_MAX = 16 << 10
"""Maximum bytes of a file with a secret. The longest secrets are tokens of some KiB."""
QUOTES = ("'", '"', "`")


class InvalidSecretError(ValueError):
    """An unusable secret. The message says why and does not show the secret."""


def parse_secret(content: str | bytes) -> str:
    """Return a secret without one line end at its end. Raises InvalidSecretError."""
    try:
        text = content.decode() if isinstance(content, bytes) else content
        text.encode()
    except UnicodeError:
        raise InvalidSecretError("is not UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if any(character.isspace() for character in text):
        raise InvalidSecretError("has white space")
    if not text.isprintable():
        raise InvalidSecretError("has a character that cannot be printed")
    if text.startswith(QUOTES) or text.endswith(QUOTES):
        raise InvalidSecretError("begins or ends with a quote")
    return text


def read_secret_bytes(file: str | Path) -> bytes:
    """Return the content of a file with a secret. Raises InvalidSecretError, whose message names the file."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidSecretError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > SECRET_BYTES_MAX:
        raise InvalidSecretError(f"{file} is larger than {SECRET_BYTES_MAX >> 10} KiB")
    return content


def read_secret_file(file: str | Path) -> str:
    """Return the secret of a file. Raises InvalidSecretError, whose message names the file."""
    content = read_secret_bytes(file)
    try:
        secret = parse_secret(content)
    except InvalidSecretError as error:
        raise InvalidSecretError(f"{file} {error}") from None
    if not secret:
        raise InvalidSecretError(f"{file} is empty")
    return secret


def read_secret_variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the secret in a variable, or in the file that the variable `{name}_FILE` names. "" without either.

    Raises InvalidSecretError, whose message names the variable or the file.
    """
    content, file = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if content and file:
        raise InvalidSecretError(f"{name} and {name}_FILE are both set")
    if file:
        return read_secret_file(file)
    try:
        return parse_secret(content)
    except InvalidSecretError as error:
        raise InvalidSecretError(f"{name} {error}") from None
