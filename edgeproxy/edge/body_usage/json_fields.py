"""Values at given paths of JSON texts, found without building anything else of them.

A key that is escaped (`"us\\u0061ge"`) is the key that it spells. Of a key that is there twice the last one counts, as
in the JSON readers of Python and JavaScript.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

Path = tuple[str, ...]
"""The keys from the top of a text to a value."""

NULL: Final = b"null"
LISTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class JsonFields:
    """The values that are looked for: their paths, and the names of each."""

    __slots__ = ("_decode", "_members")

    def __init__(self, names: Mapping[Path, tuple[str, ...]]) -> None:
        below: dict[str, dict[Path, tuple[str, ...]]] = {}
        for path, own in names.items():
            below.setdefault(path[0], {})[path[1:]] = own
        attributes = {f"m{index}": key for index, key in enumerate(below)}
        members: list[tuple[str, tuple[str, ...], JsonFields | None]] = []
        for attribute, key in attributes.items():
            deeper = {path: own for path, own in below[key].items() if path}
            members.append((attribute, below[key].get((), ()), JsonFields(deeper) if deeper else None))
        self._members = tuple(members)
        fields = [(attribute, msgspec.Raw, msgspec.Raw()) for attribute in attributes]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Members", fields, rename=attributes)).decode

    def read(self, text: bytes | bytearray, values: dict[str, bytes]) -> bool:
        """Put the values of a text into `values` by name, each as it is written; `null` is no value.

        Of a list each member is read, the last one last. Returns False where the text is no object or list of JSON, or
        is nested too deeply to be read.
        """
        try:
            try:
                self._read_object(text, values)
            except msgspec.ValidationError:
                self._read_members(LISTS.decode(text), values)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    def _read_members(self, members: Iterable[msgspec.Raw], values: dict[str, bytes]) -> None:
        for member in members:
            try:
                self._read_object(member, values)
            except msgspec.ValidationError:
                continue

    def _read_object(self, text: bytes | bytearray | msgspec.Raw, values: dict[str, bytes]) -> None:
        read = self._decode(text)
        for attribute, names, deeper in self._members:
            raw = getattr(read, attribute)
            if not raw:
                continue
            for name in names:
                if (value := bytes(raw)) != NULL:
                    values[name] = value
            if deeper is not None:
                try:
                    deeper._read_object(raw, values)
                except msgspec.ValidationError:
                    continue
