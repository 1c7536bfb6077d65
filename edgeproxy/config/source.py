"""The files of a configuration, joined into one tree: the main file, then its includes in order.

Some fields may be in several files. Mappings of named things are joined by name, and `keys` and `routes` are appended.
A name that two files define is an error, and so is any other field in two files.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgeproxy.config.file_signatures import FileSignature, compute_file_signature
from edgeproxy.config.problems import Problem, Steps, format_path
from edgeproxy.config.secret_text import InvalidSecretError, read_secret_file
from edgeproxy.config.tree import Items, Mark, Table, Value
from edgeproxy.config.yaml_reader import InvalidYamlError, parse_yaml

JOINED = ("meters", "tiers", "customers", "keys", "upstreams", "routes", "flags", "tokens")
CUSTOMER_FIELDS = {"meters", "tiers", "customers", "keys", "flags"}
"""Sections of a file that others include and that is not a configuration by itself."""
FILE_BYTES_MAX = 512 << 20
"""Maximum bytes of one file. A million keys take about 120 MB."""


class Source:
    """The text of the files of a configuration, and their problems as files."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.files: list[str] = []
        self.signs: dict[str, FileSignature] = {}
        """The signature of each file just before it was read. A later change gives another one."""
        self.tree = Table()
        self.whole = True
        """False if a file could not be read: it may have defined missing names."""
        self._problems: list[tuple[int, Problem]] = []
        self._environ = environ
        self._digest = hashlib.sha256()
        self._seen: dict[str, int] = {}
        """The mark of the include that named each file first, by the file's real path."""
        self._open: list[str] = []
        """The real paths of the files that are being included, the outermost first."""
        self._add(str(path), None, ("file",))

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of all files, in the order of reading, in hex."""
        return self._digest.hexdigest()

    def add_content(self, content: bytes) -> None:
        """Add the content of another file that belongs to the configuration to the digest."""
        self._digest.update(content)

    @property
    def is_part(self) -> bool:
        """True if the files contain only sections about customers, so that others must include them."""
        return bool(self.tree) and self.tree.keys() <= CUSTOMER_FIELDS

    @property
    def problems(self) -> list[Problem]:
        """The reported problems, in the order of files and lines."""
        return [problem for _, problem in sorted(self._problems, key=lambda noted: noted[0])]

    def report(self, mark: int, path: Steps, what: str, hint: str) -> None:
        """Record a problem of the value at `path`, written at `mark`."""
        file, line = Mark.unpack(mark)
        self._problems.append((mark, Problem(self.files[file], line, format_path(path), what, hint)))

    def format_place(self, mark: int) -> str:
        """Format the place of a mark as `file:line`."""
        file, line = Mark.unpack(mark)
        return f"{self.files[file]}:{line}"

    def _add(self, file: str, include: int | None, path: Steps) -> None:
        """Read a file and its includes. `include` and `path` are the place that names it."""
        number = len(self.files)
        self.files.append(file)
        named = Mark(number, 1).pack() if include is None else include
        real = os.path.realpath(file)
        if real in self._open:
            self.report(named, path, f"{file} includes itself", "leave this out")
            return
        if real in self._seen:
            self.report(
                named,
                path,
                f"{file} is included already at {self.format_place(self._seen[real])}",
                "leave one of them out",
            )
            return
        self._seen[real] = named
        try:
            content = self._read(file)
            self._digest.update(content)
            tree = parse_yaml(content, number, self._environ, self.report, self._read_secret)
        except OSError as error:
            self.whole = False
            self.report(named, path, f"{file} cannot be read: {error.strerror}", "name a file that can be read")
            return
        except InvalidYamlError as error:
            self.whole = False
            self.report(Mark(number, error.line).pack(), ("yaml",), error.what, error.hint)
            return
        self._open.append(real)
        self._join(tree, file)
        self._open.pop()

    def _read_secret(self, file: str) -> str:
        """Read the secret of a file. Raises InvalidSecretError."""
        self.signs[file] = compute_file_signature(file)
        return read_secret_file(file)

    def _read(self, file: str) -> bytes:
        """Read the bytes of a file. Raises OSError, or InvalidYamlError if it is too large."""
        self.signs[file] = compute_file_signature(file)
        return read_file(file)

    def _join(self, tree: Table, file: str) -> None:
        """Add the content of a file, then its includes."""
        marks = dict(zip(tree, tree.marks, strict=True))
        for key, value in tree.items():
            if key == "include":
                continue
            if key in self.tree:
                self._join_field(key, value, marks[key])
            else:
                self.tree.add_field(key, value, marks[key])
        if "include" in tree:
            self._include(tree["include"], marks["include"], file)

    def _include(self, value: Value, mark: int, file: str) -> None:
        """Read the files of an `include`, relative to the including file."""
        folder = os.path.dirname(file)
        names = value if isinstance(value, Items) else [value]
        marks = value.marks if isinstance(value, Items) else [mark]
        for index, (name, place) in enumerate(zip(names, marks, strict=True)):
            path: Steps = ("include", index) if isinstance(value, Items) else ("include",)
            if isinstance(name, str) and name and name.isprintable():
                self._add(os.path.normpath(os.path.join(folder, name)), place, path)
            elif name is not None:
                self.report(place, path, "is not a file's name", "write it as in include: [tiers.yaml]")

    def _join_field(self, key: str, value: Value, mark: int) -> None:
        """Join a field with its value in another file."""
        before = self.tree[key]
        if key in JOINED and isinstance(before, Items) and isinstance(value, Items):
            self.tree[key] = Items([*before, *value], [*before.marks, *value.marks])
        elif key in JOINED and isinstance(before, Table) and isinstance(value, Table):
            self.tree[key] = self._join_by_name(key, before, value)
        elif before is not None and value is not None:
            first = dict(zip(self.tree, self.tree.marks, strict=True))[key]
            self.report(mark, (key,), f"is defined already at {self.format_place(first)}", "leave one of them out")

    def _join_by_name(self, key: str, before: Table, more: Table) -> Table:
        """Join two mappings. A name in both is reported, and the first value stays."""
        table = Table(before, before.marks)
        first = dict(zip(before, before.marks, strict=True))
        for (name, value), mark in zip(more.items(), more.marks, strict=True):
            if name in first:
                what = f"is defined already at {self.format_place(first[name])}"
                self.report(mark, (key, name), what, "give one of them another name")
            else:
                table.add_field(name, value, mark)
        return table


class TextSource(Source):
    """A text from a request. It includes no files, and its variables are not replaced."""

    def __init__(self, name: str, text: str) -> None:
        self._content = text.encode()
        super().__init__(Path(name), {})

    def _read(self, file: str) -> bytes:
        return self._content

    def _read_secret(self, file: str) -> str:
        raise InvalidSecretError("a text cannot name one")

    def _include(self, value: Value, mark: int, file: str) -> None:
        self.report(mark, ("include",), "names files, which a text cannot include", "write their content here")


def read_file(file: str) -> bytes:
    """Read a file. Raises OSError, or InvalidYamlError if it is too large."""
    with open(file, "rb") as stream:
        content = stream.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise InvalidYamlError(1, f"is larger than {FILE_BYTES_MAX >> 20} MiB", "a configuration is not")
    return content
