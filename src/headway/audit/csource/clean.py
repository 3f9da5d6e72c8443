"""Makes a piece of C readable for a parser that knows no headers, without moving a single byte.

Decides what is blanked (comments, directives, attribute words), which loop macros become `while`,
and where the piece of text around a hit begins and ends. Decides nothing about meaning.

A kernel file is never parsed whole: a function's closing brace stands in the first column, so the
piece between two such braces is parsed alone. Every arm of an `#if` stays, one after the other,
because nobody knows the configuration; `#if 0` goes. Replacements keep length and newlines, so a
line number in a piece is a line number in the file. Time is linear in the piece.

Source: the kernel's coding style, section 3 (placing braces); the C standard, 5.1.1.2, for the
order of comments and directives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["MAX_PIECE", "blank_comments", "cleaned", "defines", "piece_around"]

MAX_PIECE = 400_000  # bytes; a longer piece is reported as skipped

_NOISE = re.compile(
    rb'/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:\\.|[^"\\\n])*"|' + rb"'(?:\\.|[^'\\\n])+'", re.DOTALL
)
_DIRECTIVE = re.compile(rb"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.MULTILINE)
_IF_ZERO = re.compile(
    rb"^[ \t]*#[ \t]*if[ \t]+0\b.*?^[ \t]*#[ \t]*(?:else|elif|endif)\b[^\n]*",
    re.MULTILINE | re.DOTALL,
)
_ATTRIBUTE = re.compile(
    rb"\b(?:__init|__exit|__initdata|__init_or_module|__meminit|__cpuinit|__devinit|__ref|__sched|"
    rb"__always_inline|__must_check|__user|__iomem|__percpu|__rcu|__force|__maybe_unused|__unused|"
    rb"__always_unused|__used|__cold|__hot|__pure|__weak|__visible|__net_init|__net_exit|"
    rb"asmlinkage|noinline|noinline_for_stack|__noreturn|__latent_entropy|__cpuidle|notrace|"
    rb"__alloc_size|__malloc|__kprobes|nokprobe_inline|__read_mostly|__packed|__bitwise|"
    rb"__attribute_const__|__deprecated|__randomize_layout|__no_sanitize_address|fallthrough)\b"
)
_ATTRIBUTE_CALL = re.compile(
    rb"\b(?:__attribute__|__printf|__scanf|__aligned|__acquires|__releases|__must_hold|"
    rb"__cond_acquires|__guarded_by|__alloc_size)[ \t]*\((?:[^()]|\([^()]*(?:\([^()]*\))?\))*\)"
)
_LOOP = re.compile(rb"\b\w*for_each\w*(?=[ \t]*\()")
_DEFINE = re.compile(
    rb"^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^)\n]*\))?((?:[^\n\\]|\\\n|\\.)*)", re.MULTILINE
)
_SPACES = bytes(10 if byte == 10 else 32 for byte in range(256))


def _blanked(match: re.Match[bytes]) -> bytes:
    return match.group().translate(_SPACES)


def _unquoted(match: re.Match[bytes]) -> bytes:
    text = match.group()
    if text[:1] == b"/":
        return text.translate(_SPACES)
    if text[:1] == b'"':
        return b'"' + text[1:-1].translate(_SPACES).replace(b"\n", b" ") + b'"'
    return b"0".ljust(len(text))  # a character is a number; which one never matters here


def blank_comments(text: bytes) -> bytes:
    """The same text with comments and the insides of strings blanked."""
    return _NOISE.sub(_unquoted, text)


def cleaned(piece: bytes) -> bytes:
    """The piece as it goes to the parser: the same length, the same lines."""
    text = blank_comments(piece)
    text = _IF_ZERO.sub(_blanked, text)
    text = _DIRECTIVE.sub(_blanked, text)
    text = _ATTRIBUTE_CALL.sub(_blanked, text)
    text = _ATTRIBUTE.sub(_blanked, text)
    return _LOOP.sub(lambda match: b"while".ljust(len(match.group())), text)


def piece_around(data: bytes, offset: int) -> tuple[int, int]:
    """Where the piece of top-level text that holds this offset begins and ends."""
    start = data.rfind(b"\n}", 0, offset)
    start = data.find(b"\n", start + 2) + 1 if start >= 0 else 0
    if start > offset:  # the offset lies on the line of the brace itself
        start = data.rfind(b"\n", 0, offset) + 1
    end = data.find(b"\n}", offset)
    if end < 0:
        return start, len(data)
    line_end = data.find(b"\n", end + 2)
    return start, len(data) if line_end < 0 else line_end


def defines(data: bytes) -> Iterator[tuple[str, tuple[str, ...] | None, bytes, int]]:
    """Each macro: name, parameters (None: it takes none), body on one line, offset."""
    for match in _DEFINE.finditer(data):
        name, parameters, body = match.groups()
        body = blank_comments(body).replace(b"\\\n", b" ").strip()
        names = None
        if parameters is not None:
            names = tuple(part.strip().decode() for part in parameters[1:-1].split(b","))
        yield name.decode(), names, body, match.start()
