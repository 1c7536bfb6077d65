"""Values at given paths of JSON texts, found without building anything else of the texts.

The paths are compiled once into the type of an object with these members, and msgspec decodes a text as this type. A
key that is escaped (`"us\\u0061ge"`) is the key that it spells. If a key is repeated the last one counts, as in the
JSON readers of Python and JavaScript.
"""

from collections.abc import Callable, Mapping
from itertools import compress, repeat
from operator import is_not
from typing import Annotated, Final, cast

import msgspec

Path = tuple[str, ...]
"""The keys from the top of a text to a value."""

Value = int | str | bytes | list[object]
"""A number, a text or a list, if its name asks for this type; any other value in its written form."""

Merge = Callable[[dict[str, Value], dict[str, Value]], None]
"""Puts the values of one object, by name, into the values of all."""

astuple = msgspec.structs.astuple
EMPTY: Final = frozenset((b"null", b'""', b"{}", b"[]"))
"""Values that state nothing."""
LISTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
STATE_NOTHING: Final[tuple[object, ...]] = (None, "", [], {})
"""Values that state nothing, in the place of a number, a text or an object."""
NOTHING: Final = repeat(None)
MEMBERS_MAX: Final = 4096
"""Members of a list that are read, from its end: a list of numbers has a hundred thousand in 256 KiB."""
NUMBER_MAX: Final = 10**12
"""The largest number that is taken from an answer: a service that errs by more must not fill up a counter."""
DIGITS_MAX: Final = len(str(NUMBER_MAX))
NUMBER: Final = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)] | None
"""The type of whole numbers from 0 to NUMBER_MAX."""
TEXT: Final = str | None
"""The type of texts."""
LIST: Final = list[object] | None
"""The type of lists."""
CLASSES: Final[Mapping[object, type]] = {NUMBER: int, TEXT: str, LIST: list}
"""The class of each type's values."""
FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


Plan = dict[str, tuple[str, object, "Plan"]]
"""The members of an object to look for: the name of each, its class, and the plan of a member that is an object."""

Member = tuple[str, tuple[str, ...], "JsonFields | None", object]
"""The key of a member, its names, the fields to look for in it, and the type of a value that has one name alone."""


class JsonFields:
    """The values to look for: their paths, and the names of each.

    A text is read in one pass as the type that it should have. Objects of numbers, for example `usage`, are short, and
    read whole; of all others only the needed members are read. If an object, a number or a text has a wrong type
    (`"usage": []`), the text is read once more, level by level, so that the rest of it is found.
    """

    __slots__ = (
        "_decode_level",
        "_decode_whole",
        "_members",
        "_merge",
        "_others",
        "_text_names",
        "_types",
        "plan",
        "struct",
    )

    def __init__(
        self,
        names: Mapping[Path, tuple[str, ...]],
        merge: Merge | None = None,
        types: Mapping[str, object] | None = None,
        *,
        is_top: bool = True,
    ) -> None:
        """`merge` puts the values of one object into the values of all; by default a later value replaces an earlier
        one. `types`: NUMBER, TEXT or LIST by name; a value of any other name keeps its written form.
        """
        self._merge = merge
        self._types = types = types or {}
        members = list_members(names, types)
        self.plan = None if is_top else build_plan(members)
        """The plan for the members of an object of numbers; None for any other object."""
        members.sort(key=lambda member: member[3] is not TEXT)
        self._text_names = [own[0] for _, own, _, type_ in members if type_ is TEXT]
        others = [(own, deeper) for _, own, deeper, type_ in members if type_ is not TEXT]
        # A member without a name has members of its own.
        self._others = cast("list[tuple[tuple[str, ...], JsonFields]]", others)
        whole: list[tuple[str, object, object]] = []
        rename: dict[str, str] = {}
        for index, (key, own, deeper, type_) in enumerate(members):
            rename[f"m{index}"] = key
            if deeper is None or own:
                whole.append((f"m{index}", type_, None))
            else:
                whole.append((f"m{index}", (deeper.struct if deeper.plan is None else dict[str, object]) | None, None))
        self._members = [
            (attribute, own, deeper) for attribute, (_, own, deeper, _) in zip(rename, members, strict=True)
        ]
        self.struct: type[msgspec.Struct] = msgspec.defstruct("Members", whole, rename=rename, gc=False)
        """The type of an object with these members; a member that has a value and members is read in its written
        form.
        """
        self._decode_whole = msgspec.json.Decoder(self.struct).decode
        level = [(attribute, msgspec.Raw, None) for attribute in rename]
        self._decode_level = msgspec.json.Decoder(msgspec.defstruct("Level", level, rename=rename)).decode

    def read(self, text: bytes | bytearray, values: dict[str, Value]) -> bool:
        """Put the values of a text into `values` by name. A value that states nothing, for example `null`, is not a
        value.

        In a list the last MEMBERS_MAX members are read, the last one last. Returns False if the text is not an object
        or list of JSON, or is nested too deeply to be read.
        """
        stated_values = self.find_values(text)
        if stated_values is None:
            return self._read_again(text, values)
        if self._merge is None:
            values.update(stated_values)
        else:
            self._merge(stated_values, values)
        return True

    def find_values(self, text: bytes | bytearray) -> dict[str, Value] | None:
        """Return the values of a text by name; None if it is not an object, or has a value of a wrong type."""
        values: dict[str, Value] = {}
        try:
            return values if self._take(self._decode_whole(text), values) else None
        except FAILURES:
            return None

    def _read_again(self, text: bytes | bytearray, values: dict[str, Value]) -> bool:
        """Read a text that is a list, or has a value of a wrong type; False if it is neither."""
        try:
            objects = [text] if text.lstrip()[:1] == b"{" else LISTS.decode(text)[-MEMBERS_MAX:]
            for object_ in objects:
                stated_values: dict[str, Value] = {}
                self._read_members(object_, stated_values)
                if self._merge is None:
                    values.update(stated_values)
                else:
                    self._merge(stated_values, values)
        except FAILURES:
            return False
        return True

    def _take(self, read: msgspec.Struct, values: dict[str, Value]) -> bool:
        """Take the values of an object after reading; return False if one has a wrong type."""
        # Most members are absent: all are fetched by one call, and another chooses the present ones.
        stated = astuple(read)
        names = self._text_names
        values.update(compress(zip(names, stated), stated))  # noqa: B905  # A keyword would cost time.
        others = stated[len(names) :]
        for (own, deeper), value in compress(zip(self._others, others), map(is_not, others, NOTHING)):  # noqa: B905
            if own:
                if value.__class__ is int or value.__class__ is list:
                    values[own[0]] = value
                else:
                    self._take_member(value, own, deeper, values)
            elif deeper.plan is None:
                if not deeper._take(value, values):
                    return False
            elif not take_members(value, deeper.plan, values):
                return False
        return True

    def _take_member(
        self, raw: msgspec.Raw, names: tuple[str, ...], deeper: "JsonFields | None", values: dict[str, Value]
    ) -> None:
        """Take a value in its written form, and the values to look for in it."""
        written = bytes(raw)
        if written not in EMPTY:
            for name in names:
                values[name] = parse_value(written, self._types.get(name))
        if deeper is not None:
            deeper._read_members(raw, values)

    def _read_members(self, text: bytes | bytearray | msgspec.Raw, values: dict[str, Value]) -> None:
        """Read a text, one level of it at a time; one that is not an object has nothing."""
        try:
            read = self._decode_level(text)
        except msgspec.ValidationError:
            return
        for attribute, names, deeper in self._members:
            raw = getattr(read, attribute)
            if raw is not None:
                self._take_member(raw, names, deeper, values)


def list_members(names: Mapping[Path, tuple[str, ...]], types: Mapping[str, object]) -> "list[Member]":
    """List the members of an object with values to look for at these paths."""
    below: dict[str, dict[Path, tuple[str, ...]]] = {}
    for path, own in names.items():
        below.setdefault(path[0], {})[path[1:]] = own
    members: list[Member] = []
    for key, paths in below.items():
        own = paths.get((), ())
        rest = {path: each for path, each in paths.items() if path}
        deeper = JsonFields(rest, types=types, is_top=False) if rest else None
        type_ = types.get(own[0], msgspec.Raw) if len(own) == 1 and deeper is None else msgspec.Raw
        members.append((key, own, deeper, type_))
    return members


def build_plan(members: "list[Member]") -> Plan | None:
    """Return the plan of an object of numbers; None if it has no number, or a member that is neither number, text nor
    list.
    """
    plan: Plan = {}
    for key, own, deeper, type_ in members:
        if deeper is not None:
            if own or deeper.plan is None:
                return None
            plan[key] = "", dict, deeper.plan
        elif type_ is NUMBER or type_ is TEXT or type_ is LIST:
            plan[key] = own[0], CLASSES[type_], {}
        else:
            return None
    return plan if any(class_ is int for _, class_, _ in plan.values()) else None


def take_members(members: dict[str, object], plan: Plan, values: dict[str, Value]) -> bool:
    """Take the values of an object of numbers; return False if one has a wrong type."""
    for key, value in members.items():
        if key not in plan:
            continue
        name, class_, deeper = plan[key]
        if value.__class__ is not class_:
            if value not in STATE_NOTHING:
                return False
        elif isinstance(value, int):
            if not 0 <= value <= NUMBER_MAX:
                return False
            values[name] = value
        elif isinstance(value, str | list):
            if value:
                values[name] = value
        elif not take_members(cast("dict[str, object]", value), deeper, values):
            return False
    return True


def parse_value(written: bytes, type_: object) -> Value:
    """Return a value of JSON as the number, text or list that it should be; in its written form if it is not one.

    For a name of another type, the text is the written form, for example `5`.
    """
    if type_ is NUMBER:
        number = parse_whole_number(written)
        return written if number is None else number
    if type_ is LIST:
        return msgspec.json.decode(written, type=list[object]) if written.startswith(b"[") else written
    return parse_text(written) if type_ is TEXT else written


def parse_whole_number(written: bytes) -> int | None:
    """Return a number of JSON; None unless it is a whole number from 0 to NUMBER_MAX (not `12.0` or `"12"`)."""
    if not written.isdigit() or len(written) > DIGITS_MAX:
        return None
    number = int(written)
    return number if number <= NUMBER_MAX else None


def parse_text(written: bytes) -> str:
    """Return a text of JSON; any other value in its written form, with U+FFFD for bytes that are not UTF-8."""
    if written.startswith(b'"'):
        try:
            return msgspec.json.decode(written, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return written.decode(errors="replace")
