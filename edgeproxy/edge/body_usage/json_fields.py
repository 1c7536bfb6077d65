"""Values at given paths of JSON texts, stated_values without building anything else of them.

A key that is escaped (`"us\\u0061ge"`) is the key that it spells. Of a key that is there twice the last one counts, as
in the JSON readers of Python and JavaScript.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

Path = tuple[str, ...]
"""The keys from the top of a text to a value."""

Merge = Callable[[Mapping[str, bytes], dict[str, bytes]], None]
"""Puts the values of one object, by name, into those of all."""

astuple = msgspec.structs.astuple
NULL: Final = b"null"
LISTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
MEMBERS_MAX: Final = 4096
"""Members of a list that are read, from its end: a list of numbers has a hundred thousand in 256 KiB."""


class JsonFields:
    """The values that are looked for: their paths, and the names of each.

    A text is read in one pass as the type that it should have. Where something else stands in the place of an object,
    such as `"usage": []`, it is read once more, level by level, so that the rest of it is stated_values.
    """

    __slots__ = ("_decode_level", "_decode_whole", "_members", "_merge", "_single_names", "struct")

    def __init__(self, names: Mapping[Path, tuple[str, ...]], merge: Merge | None = None) -> None:
        """`merge` puts the values of one object into those of all; by default a later value replaces an earlier one."""
        self._merge = merge
        below: dict[str, dict[Path, tuple[str, ...]]] = {}
        for path, own in names.items():
            below.setdefault(path[0], {})[path[1:]] = own
        attributes = {f"m{index}": key for index, key in enumerate(below)}
        members: list[tuple[str, tuple[str, ...], JsonFields | None]] = []
        for attribute, key in attributes.items():
            deeper = {path: own for path, own in below[key].items() if path}
            members.append((attribute, below[key].get((), ()), JsonFields(deeper) if deeper else None))
        self._members = tuple(members)
        self._single_names = [names[0] if len(names) == 1 and deeper is None else "" for _, names, deeper in members]
        """The names of members that have one name and no members of their own."""
        whole: list[tuple[str, object, object]] = [
            (attribute, msgspec.Raw, msgspec.Raw())
            if deeper is None or own
            else (attribute, deeper.struct | None, None)
            for attribute, own, deeper in members
        ]
        self.struct: type[msgspec.Struct] = msgspec.defstruct("Members", whole, rename=attributes, gc=False)
        """The type of an object with these members; one that has a value and members is read as it is written."""
        self._decode_whole = msgspec.json.Decoder(self.struct).decode
        level = [(attribute, msgspec.Raw, msgspec.Raw()) for attribute in attributes]
        self._decode_level = msgspec.json.Decoder(msgspec.defstruct("Level", level, rename=attributes)).decode

    def read(self, text: bytes | bytearray, values: dict[str, bytes]) -> bool:
        """Put the values of a text into `values` by name, each as it is written; `null` is no value.

        Of a list the last MEMBERS_MAX members are read, the last one last. Returns False where the text is no object or
        list of JSON, or is nested too deeply to be read.
        """
        try:
            try:
                read = self._decode_whole(text)
            except msgspec.ValidationError:
                for member in [text] if text.lstrip()[:1] == b"{" else LISTS.decode(text)[-MEMBERS_MAX:]:
                    self._read_object(member, values)
            else:
                stated_values: dict[str, bytes] = {}
                self._take(read, stated_values)
                self._put(stated_values, values)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    def _read_object(self, text: bytes | bytearray | msgspec.Raw, values: dict[str, bytes]) -> None:
        """Read one object of a list, or one that has something else in the place of an object."""
        stated_values: dict[str, bytes] = {}
        self._read_members(text, stated_values)
        self._put(stated_values, values)

    def _put(self, stated_values: dict[str, bytes], values: dict[str, bytes]) -> None:
        if self._merge is not None:
            self._merge(stated_values, values)
            return
        for name, value in stated_values.items():
            if value != NULL:
                values[name] = value

    def _take(self, read: msgspec.Struct, values: dict[str, bytes]) -> None:
        """Take the values of an object that is read."""
        # Most members are absent: all are fetched by one call.
        index = -1
        for value in astuple(read):
            index += 1
            if not value:
                continue
            name = self._single_names[index]
            if name:
                values[name] = bytes(value)
                continue
            _, names, deeper = self._members[index]
            if names:
                self._take_member(value, names, deeper, values)
            else:
                assert deeper is not None
                deeper._take(value, values)

    def _take_member(
        self, raw: msgspec.Raw, names: tuple[str, ...], deeper: "JsonFields | None", values: dict[str, bytes]
    ) -> None:
        """Take a value as it is written, and what is looked for in it."""
        value = bytes(raw)
        if value != NULL:
            for name in names:
                values[name] = value
        if deeper is not None:
            deeper._read_members(raw, values)

    def _read_members(self, text: bytes | bytearray | msgspec.Raw, values: dict[str, bytes]) -> None:
        """Read a text, one level of it at a time; one that is no object has nothing."""
        try:
            read = self._decode_level(text)
        except msgspec.ValidationError:
            return
        for attribute, names, deeper in self._members:
            raw = getattr(read, attribute)
            if raw:
                self._take_member(raw, names, deeper, values)
