"""Names that mean something: allocators, their families, and purposes for which failure is fine.

Decides only what a name says. The purposes are the part of the expert's judgement that no flow
shows: why nobody minds. They are few, and a project can add its own words by configuration.

Source: the purposes named in the 2018 audit of `__GFP_NORETRY`; allocator names of Linux 4.17-6.12.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from headway.errors import UsageError

__all__ = [
    "CONFIGURABLE",
    "Purpose",
    "ends_all",
    "family",
    "is_allocator",
    "is_harmless",
    "is_setup",
    "own_purposes",
    "purpose_of",
    "turns_off",
]

_NAMES = 8192  # whose meaning is kept: a walk asks for the same few again and again
_ALLOCATOR = re.compile(
    r"(?:^|_)(?:k[mzvc]\w*alloc\w*|k(?:v)?mem\w*dup|kstr\w*dup|v[mz]?alloc\w*|\w*alloc\w*|dup|"
    r"get_free_pages?|get_dma_pages|get_zeroed_page|read_mapping_page\w*|expand_head)(?:_|$)|alloc"
)
_NOT_ALLOCATOR = re.compile(r"free|deallo|allocated|dealloc|unalloc|disalloc|allocator_|realloc_ok")
_FAMILIES = (
    ("vmalloc", re.compile(r"vmalloc|vzalloc|vmap\b|^__vmalloc")),
    ("mempool", re.compile(r"mempool_alloc|bio_alloc_bioset|bvec_alloc")),
    (
        "page",
        re.compile(r"(alloc_pages?|get_free_pages?|get_dma_pages|get_zeroed_page|folio_alloc)"),
    ),
    ("slab", re.compile(r"k[mzvc]alloc|kmem_cache|kcalloc|kmalloc|kvzalloc|kvcalloc")),
)
_TURNS_OFF = re.compile(r"(^|_)(disable|turn_off|shut_?down|switch_off)(_|$)|_disabled?$|_oom$")
_SETUP = re.compile(r"(^|_)(init|setup|probe|register|realloc|resize|update)(_|$)")
_ENDS = frozenset(("panic", "BUG", "do_exit", "exit", "abort", "unreachable", "fatal"))
_HARMLESS = re.compile(
    r"free|put|unlock|pr_|dev_(?:err|warn|info|dbg)|printk|WARN|trace|debug|dbg|cond_resched|"
    r"release|destroy|unmap|unpin|drm_|kfree"
)


class Purpose:
    """A use whose failure nobody minds: the verdict, and why."""

    __slots__ = ("reason", "verdict", "words")

    def __init__(self, words: str, verdict: str, reason: str) -> None:
        self.words = re.compile(words)
        self.verdict = verdict
        self.reason = reason


_TOLERATED = "failure-tolerated"
CONFIGURABLE = ("disables-feature", "failure-tolerated", "readahead-only")
_PURPOSES = (
    Purpose(
        r"read_?ahead|prefetch|(^|_)READ_?AHEAD(_|$)|(^|_)ra(_|$)",
        "readahead-only",
        "only speculative reading is lost",
    ),
    Purpose(r"balloon|(^|[_/])cmm([_./]|$)", _TOLERATED, "a balloon that inflates less is fine"),
    Purpose(
        r"huge_?tlb|transhuge|thp|huge_?page|(^|_)pmd_page|huge_?(mem|obj)",
        _TOLERATED,
        "a huge page is only attempted",
    ),
    Purpose(
        r"(^|[_/])(core|err\w*|gpu)?_?dump([_./]|$)|coredump|devcoredump|gpu_error|capture",
        _TOLERATED,
        "a dump that cannot be made is lost, nothing else",
    ),
    Purpose(
        r"migrat|compact(ion|_)|(^|[_/])ksm([_./]|$)",
        _TOLERATED,
        "a page that cannot be moved or merged stays where it is",
    ),
    Purpose(
        r"fscache|cachefiles|cleancache|frontswap|(^|[_/])zswap_(frontswap_)?store",
        _TOLERATED,
        "what stands behind this cache is used instead",
    ),
    Purpose(
        r"(^|[_/])(selftests?|kunit|\w*_test)([_./]|$)", _TOLERATED, "a test may fail to get memory"
    ),
    Purpose(r"(^|_)(trim|shrink_head|defrag)(_|$)", _TOLERATED, "an optimisation is left out"),
)


def own_purposes(configured: Mapping[str, Sequence[str]]) -> tuple[Purpose, ...]:
    """A project's own words, by verdict; a word matches a whole part of a name or path.

    Raises: UsageError for a verdict that is none of these, or a word that is no part of a name.
    """
    out = []
    for verdict, own in sorted(configured.items()):
        if verdict not in CONFIGURABLE:
            raise UsageError(
                f"audit purpose {verdict!r} is no verdict; it may be {', '.join(CONFIGURABLE)}"
            )
        for word in own:
            if not re.fullmatch(r"\w+", word):
                raise UsageError(
                    f"audit purpose {verdict!r} has {word!r}, which is no word of letters, digits and _"
                )
            reason = f"the project's settings say so of {word!r}"
            out.append(Purpose(rf"(^|[_/.]){word}([_/.(]|$)", verdict, reason))
    return tuple(out)


def purpose_of(
    path: str, function: str, *texts: str, own: tuple[Purpose, ...] = ()
) -> Purpose | None:
    """The purpose that a place's path, function or other words show, if any; ``own`` ones first."""
    for purpose in (*own, *_PURPOSES):
        for text in (function, path, *texts):
            if text and purpose.words.search(text):
                return purpose
    return None


@functools.lru_cache(_NAMES)
def family(name: str) -> str:
    """Which sort of allocator a name is: vmalloc, mempool, page, slab, or its own name."""
    for word, pattern in _FAMILIES:
        if pattern.search(name):
            return word
    return name


@functools.lru_cache(_NAMES)
def is_allocator(name: str) -> bool:
    """Whether a name reads like something that allocates."""
    name = name.lower()
    return bool(_ALLOCATOR.search(name)) and not _NOT_ALLOCATOR.search(name)


@functools.lru_cache(_NAMES)
def turns_off(name: str) -> bool:
    """Whether a call switches a feature off."""
    return bool(_TURNS_OFF.search(name))


def ends_all(name: str) -> bool:
    """Whether a call never comes back."""
    return name in _ENDS


def is_setup(name: str) -> bool:
    """Whether a function sets something up or changes its size: silent failure is noticed later."""
    return bool(_SETUP.search(name))


def is_harmless(name: str) -> bool:
    """Whether a call on a failure path only cleans up or reports."""
    return bool(_HARMLESS.search(name))
