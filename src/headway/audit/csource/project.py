"""The part of a C tree that one question needs: its files, macros, mask helpers, and callers.

Decides what is read and parsed, and resolves names over file borders: a macro of a header means the
same in every file, one of a C file only there; a static function is called only from its own file.
Everything is made on demand and kept; files are read once.

Bound: three searches over the tree, whatever the number of names; parsed are only the pieces around
the hits.

Source: the scoping rules of C; audit experience with callers in other files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headway.audit.csource import clean, functions
from headway.audit.csource.functions import Function, Read
from headway.audit.csource.gfp import Mask, evaluate, is_word
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.search import MAX_BYTES, Hits, Search, is_mute, places_of
from headway.audit.csource.tree import calls, identifiers
from headway.audit.csource.words import Purpose, is_allocator
from headway.audit.finding import Options, Skipped, Stamp

__all__ = ["Caller", "Project", "is_own"]

_VARIABLE = re.compile(rb"^(?:static |const |__\w+ )*gfp_t\s+(\w+)\s*=([^;]*);", re.MULTILINE)
_OWN = re.compile(r"(^|/)(include/linux/gfp(_types)?\.h|tools/|Documentation/)")
MAX_CALLERS = 40  # of one function that are looked at, and files with code that are read for them
LARGE = 64 << 10  # bytes; of a header that is looked into before it is searched again
_SMALL: Stamp = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Caller:
    """A call of a function, as a site in the function that calls."""

    analysis: Analysis
    site: Site


@dataclass(slots=True)
class _File:
    data: bytes
    masks: dict[str, Mask] = field(default_factory=dict)
    allocating: dict[str, int] = field(default_factory=dict)  # macros that allocate: line
    functions: dict[str, Analysis] = field(default_factory=dict)
    named: dict[str, list[int]] = field(default_factory=dict)  # where its own functions are named
    read: Read = field(default_factory=dict)


class Project:
    """A set of C files, read as far as it is asked about."""

    def __init__(
        self,
        paths: Sequence[str],
        options: Options,
        purposes: tuple[Purpose, ...] = (),
        begun: Search | None = None,
    ) -> None:
        """``begun``: a search for the flag over all these files, if one is under way."""
        self.paths = paths
        self.options = options
        self.purposes = purposes
        self.skipped: list[Skipped] = []
        self.unread: list[Skipped] = []
        self.shared: dict[str, Mask] = {}  # masks named in headers
        self.shared_allocating: dict[str, tuple[str, int]] = {}
        self._files: dict[str, _File] = {}
        self._called: dict[str, list[tuple[str, list[int]]]] = {}
        self._begun = begun
        self._left = paths  # still to be searched

    def find_flag(self, flag: str) -> Hits:
        """Where the flag is written, over all files."""
        with ThreadPoolExecutor(1) as beside:
            left = beside.submit(_may_call, self.paths, self.options.stamps)
            under_way, self._begun = self._begun, None
            hits = self._found(under_way or self._search([flag]), flag)
            self._left = left.result()
        return hits

    def _search(self, names: Iterable[str]) -> Search:
        under_way = Search(names, self.options.jobs)
        under_way.add(self._left)
        return under_way

    def _found(self, under_way: Search, stage: str, names: Set[str] = frozenset()) -> Hits:
        """What a search finds; ``names`` are of functions whose callers are wanted."""
        hits: Hits = {}
        done = 0
        seen: Counter[str] = Counter()
        with under_way:
            for count, part in under_way.parts():
                for path, places in part.items():
                    self._read_ahead(path, places, names, seen)
                hits.update(part)
                done += count
                if self.options.progress is not None:
                    self.options.progress(stage, done, len(self._left))
            self.unread += under_way.unread
        return hits

    def _read_ahead(
        self, path: str, places: list[tuple[int, str]], names: Set[str], seen: Counter[str]
    ) -> None:
        """Parse what will be asked for while other files are searched, and no more; ``seen`` counts files."""
        if is_own(path):
            return
        groups: dict[str, list[int]] = {}
        for offset, word in places:
            groups.setdefault(word if word in names else "", []).append(offset)
        for name, offsets in groups.items():
            if seen[name] < MAX_CALLERS:
                self._read(path, offsets)
            seen[name] += name != ""

    def _read(self, path: str, offsets: list[int]) -> tuple[list[Function], list[str]]:
        file = self.file(path)
        if file is None:
            return [], []
        return functions.functions_at(path, file.data, offsets, file.read)

    def file(self, path: str) -> _File | None:
        """A file's bytes; None (and said once) if it cannot be read."""
        if path not in self._files:
            try:
                with open(path, "rb") as stream:
                    data = stream.read(MAX_BYTES + 1)
            except OSError as error:
                self.unread.append(Skipped.unread(path, error))
                data = b""
            why = functions.unreadable(data)
            if why:
                self.skipped.append(Skipped(path, why))
                data = b""
            self._files[path] = _File(data)
        made = self._files[path]
        return made if made.data else None

    def learn(self, path: str, flag: str, hits: list[tuple[int, str]]) -> None:
        """Take the macros, variables and mask functions of a file that carry the flag."""
        file = self.file(path)
        if file is None:
            return
        header = path.endswith(".h")
        wanted = flag.encode()
        for name, parameters, body, offset in clean.defines(file.data):
            if wanted in body:
                self._learn_macro(path, file, name, parameters, body, offset, header)
        for match in _VARIABLE.finditer(file.data):
            if wanted in match.group(2):
                self._learn_mask(file, match.group(1).decode(), match.group(2), header)
        for analysis in self.functions_at(path, [offset for offset, _ in hits]):
            function = analysis.function
            if function.returns == "gfp":
                mask = _returned(analysis)
                if mask is not None and mask.may_hold(flag):
                    file.masks[function.name] = mask
                    if not function.static or header:
                        self.shared[function.name] = mask

    def _learn_macro(
        self,
        path: str,
        file: _File,
        name: str,
        parameters: tuple[str, ...] | None,
        body: bytes,
        offset: int,
        header: bool,
    ) -> None:
        expr = functions.expression(body)
        allocates = expr is not None and any(is_allocator(call.op) for call in calls(expr))
        if expr is None or allocates or b";" in body:
            line = file.data.count(b"\n", 0, offset) + 1
            if parameters is not None and (allocates or re.search(rb"[aA][lL][lL][oO][cC]", body)):
                file.allocating[name] = line
                if header:
                    self.shared_allocating[name] = (path, line)
            return
        if any(is_word(word) for word in identifiers(expr)):
            self._learn_mask(file, name, body, header)

    def _learn_mask(self, file: _File, name: str, text: bytes, shared: bool) -> None:
        expr = functions.expression(text)
        if expr is None:
            return
        mask = evaluate(expr, {}, {**self.shared, **file.masks})
        origin = text.decode("utf-8", "replace")
        file.masks[name] = Mask(mask.sure, mask.maybe, mask.gone, mask.whole, True, origin)
        if shared:
            self.shared[name] = file.masks[name]

    def known(self, path: str) -> Mapping[str, Mask]:
        """The masks that names stand for in this file."""
        file = self.file(path)
        return {**self.shared, **file.masks} if file is not None else self.shared

    def functions_at(self, path: str, offsets: list[int]) -> list[Analysis]:
        """The functions around these offsets, analysed; each is made once."""
        file = self.file(path)
        if file is None:
            return []
        found, reasons = self._read(path, offsets)
        self.skipped += [Skipped(path, reason) for reason in reasons]
        out = []
        for function in found:
            key = f"{function.line}"
            if key not in file.functions:
                file.functions[key] = Analysis(function, self.known(path), self.purposes)
            out.append(file.functions[key])
        return out

    def forget(self) -> None:
        """Drop analyses made before all masks were known."""
        for file in self._files.values():
            file.functions.clear()

    def look_up_callers(self, wanted: Iterable[Function], others: Iterable[str] = ()) -> Hits:
        """Search the tree once for the callers of all these functions, and for other words.

        Returns the places of the other words.
        """
        names = {f.name for f in wanted if not f.static or f.path.endswith(".h")}
        names -= self._called.keys()
        for name in names:
            self._called[name] = []
        asked = set(others)
        rest: Hits = {}
        found = self._found(self._search(names | asked), "callers", names)
        for path, places in sorted(found.items()):
            for name in sorted({word for _, word in places}):
                offsets = [offset for offset, word in places if word == name]
                if name in names:
                    self._called[name].append((path, offsets))
                if name in asked:
                    rest.setdefault(path, []).extend((offset, name) for offset in offsets)
        return rest

    def looked_up(self, function: Function) -> bool:
        """Whether all callers of a function can be known by now."""
        own = function.static and not function.path.endswith(".h")
        return own or function.name in self._called

    def callers(self, function: Function) -> tuple[list[Caller], str]:
        """Who calls this function; and the line where its address is taken, if it is.

        For a function that is not static, `look_up_callers` comes first.
        """
        name = function.name
        places = self._called.get(name, []) if name in self._called else []
        file = self.file(function.path)
        if file is not None and not any(path == function.path for path, _ in places):
            if name not in file.named:
                file.named[name] = places_of(file.data, name)
            places = [(function.path, file.named[name]), *places]
        out: list[Caller] = []
        taken = ""
        count = 0
        for path, offsets in places:
            other = self.file(path) if count < MAX_CALLERS else None
            if other is None:
                continue
            count += b"{" in other.data
            if path != function.path and _own_static(other.data, name, offsets):
                continue
            for analysis in self.functions_at(path, offsets):
                out += [Caller(analysis, site) for site in _sites_of(analysis, name)]
            taken = taken or _address_taken(other.data, name, offsets)
        mine = [c for c in out if c.analysis.function.name != name]
        return mine[:MAX_CALLERS], taken


def _may_call(paths: Sequence[str], stamps: Mapping[str, Stamp]) -> list[str]:
    """The files but for large headers that name no function: two fifths of Linux are lists of registers."""
    large = [p for p in paths if p.endswith(".h") and stamps.get(p, _SMALL)[0] >= LARGE]
    mute = {path for path in large if is_mute(path)}
    return [path for path in paths if path not in mute]


def is_own(path: str) -> bool:
    """Whether a file only defines the flags, or is no part of what runs."""
    return bool(_OWN.search(path))


def _line_of(data: bytes, offset: int) -> bytes:
    end = data.find(b"\n", offset)
    return data[data.rfind(b"\n", 0, offset) + 1 : end if end >= 0 else len(data)]


def _own_static(data: bytes, name: str, offsets: list[int]) -> bool:
    """Whether one of these places begins a static function of that name."""
    head = re.compile(rb"^static[^;{}()=]*\b%s\s*\(" % name.encode())
    return any(head.match(_line_of(data, offset)) for offset in offsets)


_USED_AS_VALUE = re.compile(rb"\s*[,;)}]")


def _address_taken(data: bytes, name: str, offsets: list[int]) -> str:
    """The line with ``.op = name`` or ``, name,``: not a call, but somebody will call it."""
    for offset in offsets:
        before = data[max(offset - 80, 0) : offset].rstrip()[-1:]
        if before in (b"=", b",", b"(", b"&") and _USED_AS_VALUE.match(data, offset + len(name)):
            return _line_of(data, offset).decode("utf-8", "replace")
    return ""


def _sites_of(analysis: Analysis, name: str) -> list[Site]:
    from headway.audit.csource.gfp import NOTHING
    from headway.audit.csource.masks import target_of

    out = []
    for number, step in enumerate(analysis.graph.steps):
        if step.expr is None:
            continue
        for call in step.calls():
            if call.op == name:
                target = target_of(step.expr, call)
                if not target and step.kind == "return":
                    target = "return"
                out.append(Site(number, call, NOTHING, -1, target))
    return out


def _returned(analysis: Analysis) -> Mask | None:
    """The mask that a function returns, over all its returns."""
    out: Mask | None = None
    for number, step in enumerate(analysis.graph.steps):
        if step.kind == "return" and step.expr is not None:
            mask = evaluate(step.expr, analysis.at(number), analysis.known)
            out = mask if out is None else out.joined(mask)
    return out
