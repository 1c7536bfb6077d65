"""Checks of a configuration. Each check sees the whole configuration, so no problem hides another."""

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from edgeproxy.config import certificates, error_templates, htpasswd, networks, references
from edgeproxy.config.defaults import add_limit_names
from edgeproxy.config.explain import explain_errors, list_fields
from edgeproxy.config.file_signatures import compute_file_signature
from edgeproxy.config.misspelled import correct_sections, find_misspelled_sections
from edgeproxy.config.part import Part
from edgeproxy.config.problems import Steps
from edgeproxy.config.source import Source
from edgeproxy.config.tree import Items, Location, Places, Table, Value, replace_value

W = TypeVar("W", bound=Part)


class Kind(NamedTuple, Generic[W]):
    """A kind of configuration file: its `model`, and `find_faults`, which finds contradictions between its parts."""

    model: type[W]
    find_faults: Callable[[Table], Iterable[references.Fault]]


class Check(Generic[W]):
    """The checks of one source. It collects all problems.

    `parts`: the source may be a part of another one. Without `files`, the content of named files (certificates, for
    example) is not checked, except for `lists` of networks if wanted. `also` adds checks of a configuration that has no
    other problem.
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
        """True if a missing name cannot be in another file."""
        self._places = Places(source.tree)
        self._misspelled: dict[str, str] = {}
        """Misspelled names of sections, by the correct names."""

    def run(self) -> W | None:
        """Run all checks and return the configuration. None: the source is a part, or it has a problem."""
        tree = add_limit_names(self._correct_sections(self._source.tree))
        if self._lists:
            tree = self._add_networks(tree)
        if self._files:
            tree = self._add_users(self._add_templates(tree))
        self._check_references(tree)
        if self._files:
            self._check_certificates(tree)
        written = self._check_models(tree)
        if self._also is not None and written is not None and not self._source.problems:
            for fault in self._also(written):
                self._report(fault.path, fault.what, fault.hint)
        return None if self._source.problems else written

    def _correct_sections(self, tree: Table) -> Table:
        """Report misspelled names of sections, and return the tree with the correct names."""
        self._misspelled = find_misspelled_sections(tree, self._list_known_fields(()))
        for section, name in self._misspelled.items():
            self._report((name,), "unknown field", f"did you mean {section}?")
        return correct_sections(tree, self._misspelled) if self._misspelled else tree

    def _check_references(self, tree: Table) -> None:
        """Report contradictions between parts. If a file could not be read, missing names may be in it."""
        for fault in self._kind.find_faults(tree):
            what = fault.what
            if fault.first is not None:
                what += f" {self._source.format_place(self._locate(fault.first).mark)}"
            self._report(fault.path, what, fault.hint)
        if self._whole:
            for fault in references.find_unknown_names(tree):
                self._report(fault.path, fault.what, fault.hint)

    def _check_certificates(self, tree: Table) -> None:
        """Check the certificate files that the tree names.

        If one is wrong, all count as files of the configuration, so that a correction is noticed.
        """
        signs = {str(file): compute_file_signature(file) for file in certificates.list_named_files(tree)}
        faults = list(certificates.find_faults(tree))
        if faults:
            self._source.signs |= signs
        for fault in faults:
            self._report(fault.path, fault.what, fault.hint)

    def _add_networks(self, tree: Table) -> Table:
        """Return the tree with the networks from files. Their content is a part of the configuration."""
        for path, section in networks.list_network_sections(tree):
            lists: dict[str, Value] = {}
            for name in networks.LISTS:
                file = section.get(f"{name}_file")
                if isinstance(file, str) and file:
                    self._source.signs[file] = compute_file_signature(file)
                    try:
                        content, listed = networks.read_network_list(file)
                    except networks.InvalidNetworkListError as error:
                        self._report((*path, f"{name}_file"), error.what, error.hint)
                        continue
                    self._source.add_content(content)
                    inline = section.get(name, Items())
                    lists[name] = Items([*inline, *listed]) if isinstance(inline, Items) else inline
            tree = replace_value(tree, path, Table({**section, **lists})) if lists else tree
        return tree

    def _add_templates(self, tree: Table) -> Table:
        """Return the tree with the templates of error bodies. Their text is a part of the configuration."""
        for path, section in error_templates.list_error_sections(tree):
            file = section.get("template")
            if not isinstance(file, str) or not file:
                continue
            self._source.signs[file] = compute_file_signature(file)
            try:
                content, text = error_templates.read_template(file)
            except error_templates.InvalidTemplateError as error:
                self._report((*path, "template"), error.what, error.hint)
                continue
            self._source.add_content(content)
            tree = replace_value(tree, path, Table({**section, "text": text}))
        return tree

    def _add_users(self, tree: Table) -> Table:
        """Return the tree with the users from files of htpasswd. Their content is a part of the configuration."""
        for path, section in htpasswd.list_basic_sections(tree):
            if "users" in section:
                self._report((*path, "users"), "cannot be set", "write the users into the file of basic")
                continue
            file = section.get("basic")
            if not isinstance(file, str) or not file:
                continue
            self._source.signs[file] = compute_file_signature(file)
            try:
                content, users = htpasswd.read_users(file)
            except htpasswd.InvalidUsersError as error:
                self._report((*path, "basic"), error.what, error.hint)
                continue
            self._source.add_content(content)
            tree = replace_value(tree, path, Table({**section, "users": Table(dict(users))}))
        return tree

    def _check_models(self, tree: Table) -> W | None:
        """Report faults within each part."""
        try:
            return self._kind.model.model_validate(tree)
        except ValidationError as error:
            findings = list(explain_errors(error, self._list_known_fields))
            suggested = {(*finding.path[:-1], finding.hint) for finding in findings}
            for finding in findings:
                if finding.missing and len(finding.path) == 1 and not self._whole:
                    continue
                if finding.missing and (*finding.path[:-1], f"did you mean {finding.path[-1]}?") in suggested:
                    continue  # The field is there but misspelled. That is reported separately.
                self._report(finding.path, finding.what, finding.hint, finding.missing)
            return None

    def _report(self, path: Steps, what: str, hint: str, missing: bool = False) -> None:
        """Report a problem at the place of its value, or of a `missing` value."""
        location = self._locate(path)
        if location.value is None:
            return  # It was reported when the file was read.
        written = location.written + path[-1:] if missing else location.written
        self._source.report(location.mark, written, what, hint)

    def _locate(self, path: Steps) -> Location:
        """Return the location of the value at a path."""
        return self._places.locate((self._misspelled.get(str(path[0]), path[0]), *path[1:]) if path else path)

    def _list_known_fields(self, path: Steps) -> set[str]:
        """List the fields that the mapping at `path` may have."""
        return list_fields(self._kind.model, path) | ({"include"} if not path else set())
