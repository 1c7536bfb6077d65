"""All checks of what files say, each of which sees everything: no problem hides another."""

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from edgeproxy.config import certificates, networks, references
from edgeproxy.config.defaults import with_names
from edgeproxy.config.explain import fields_of, findings
from edgeproxy.config.file_signatures import sign
from edgeproxy.config.models import Written
from edgeproxy.config.part import Part
from edgeproxy.config.problems import Steps
from edgeproxy.config.source import Source
from edgeproxy.config.tree import Items, Places, Table, Value, replaced

W = TypeVar("W", bound=Part)


class Kind(NamedTuple, Generic[W]):
    """A kind of configuration file: the `model` of what may be written, and `faults`, which finds contradictions
    between its parts."""

    model: type[W]
    faults: Callable[[Table], Iterable[references.Fault]]


EDGE = Kind(Written, references.faults)


class Check(Generic[W]):
    """The checks of one source, to which all problems are reported.

    With `parts` it may be a part of another one. Without `files` those that it names, such as certificates, are not
    looked at, but for `lists` of networks where these are wanted. `also` finds what is wrong, for those who ask, with
    a configuration in which nothing else is.
    """

    def __init__(
        self,
        source: Source,
        kind: Kind[W],
        *,
        parts: bool = False,
        files: bool = True,
        lists: bool | None = None,
        also: Callable[[W], Iterable[references.Fault]] | None = None,
    ) -> None:
        self._source = source
        self._kind = kind
        self._files, self._lists = files, files if lists is None else lists
        self._also = also
        self._whole = source.whole and not (parts and source.is_part)
        """Whether nothing that is not here can be elsewhere."""
        self._places = Places(source.tree)

    def run(self) -> W | None:
        """Check everything, and return the configuration; None where the source is a part of one, or has a problem."""
        tree = with_names(self._source.tree)
        if self._lists:
            tree = self._networks(tree)
        self._references(tree)
        if self._files:
            self._certificates(tree)
        written = self._models(tree)
        if self._also is not None and written is not None and not self._source.problems:
            for fault in self._also(written):
                self._report(fault.path, fault.what, fault.hint)
        return None if self._source.problems else written

    def _references(self, tree: Table) -> None:
        """Report contradictions between parts. Where not all was read, missing names may be elsewhere."""
        for fault in self._kind.faults(tree):
            what = fault.what
            if fault.first is not None:
                what += f" {self._source.place(self._places.locate(fault.first).mark)}"
            self._report(fault.path, what, fault.hint)
        if self._whole:
            for fault in references.unknown_names(tree):
                self._report(fault.path, fault.what, fault.hint)

    def _certificates(self, tree: Table) -> None:
        """What the files say that it names. Where one is wrong they count as files of the configuration: should it
        be put right, all is well."""
        signs = {str(file): sign(file) for file in certificates.named(tree)}
        faults = list(certificates.faults(tree))
        if faults:
            self._source.signs |= signs
        for fault in faults:
            self._report(fault.path, fault.what, fault.hint)

    def _networks(self, tree: Table) -> Table:
        """The tree with the networks that files list. What is in these is a part of the configuration."""
        for path, said in networks.places(tree):
            lists: dict[str, Value] = {}
            for name in networks.LISTS:
                file = said.get(f"{name}_file")
                if isinstance(file, str) and file:
                    self._source.signs[file] = sign(file)
                    try:
                        content, found = networks.read(file)
                    except networks.Unusable as why:
                        self._report((*path, f"{name}_file"), why.what, why.hint)
                        continue
                    self._source.add(content)
                    there = said.get(name, Items())
                    lists[name] = Items([*there, *found]) if isinstance(there, Items) else there
            tree = replaced(tree, path, Table({**said, **lists})) if lists else tree
        return tree

    def _models(self, tree: Table) -> W | None:
        """Report what is wrong with each part by itself."""
        try:
            return self._kind.model.model_validate(tree)
        except ValidationError as error:
            for finding in findings(error, self._known):
                if finding.missing and len(finding.path) == 1 and not self._whole:
                    continue
                self._report(finding.path, finding.what, finding.hint, finding.missing)
            return None

    def _report(self, path: Steps, what: str, hint: str, missing: bool = False) -> None:
        """Report a problem where its value is written, or where it is `missing`."""
        found = self._places.locate(path)
        if found.value is None:
            return  # Reported when it was read.
        written = found.written + path[-1:] if missing else found.written
        self._source.report(found.mark, written, what, hint)

    def _known(self, path: Steps) -> set[str]:
        """List the fields that the mapping at `path` may have."""
        return fields_of(self._kind.model, path) | ({"include"} if not path else set())
