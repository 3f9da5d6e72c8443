// The rule noretry as Coccinelle can say it: an allocation that gives up early, and a failure that leaves the
// function before anything else is tried. Run by `bench/audit_peer.py`; each finding is a line FILE:LINE:FUNCTION.
//
// What it cannot say: flags behind macros and helpers, a retry in a caller, a purpose for which failure is fine.

@direct@
expression x, y;
identifier alloc, out;
position p;
@@

 x = alloc@p(..., <+... __GFP_NORETRY ...+>, ...)
 ... when != x = y
(
 if (!x) { ... return ...; }
|
 if (!x) { ... goto out; }
|
 if (IS_ERR(x)) { ... return ...; }
)

@handed_up@
identifier alloc;
position p;
@@

 return alloc@p(..., <+... __GFP_NORETRY ...+>, ...);

@variable@
expression x, y;
identifier alloc, mask, out;
position p;
@@

(
 mask = <+... __GFP_NORETRY ...+>
|
 mask |= <+... __GFP_NORETRY ...+>
)
 ... when != mask &= ...
 x = alloc@p(..., <+... mask ...+>, ...)
 ... when != x = y
(
 if (!x) { ... return ...; }
|
 if (!x) { ... goto out; }
)

@declared@
expression x, y;
identifier alloc, mask, out;
type T;
position p;
@@

 T mask = <+... __GFP_NORETRY ...+>;
 ... when != mask &= ...
 x = alloc@p(..., <+... mask ...+>, ...)
 ... when != x = y
(
 if (!x) { ... return ...; }
|
 if (!x) { ... goto out; }
)

@script:python@
p << direct.p;
@@
print("%s:%s:%s" % (p[0].file, p[0].line, p[0].current_element))

@script:python@
p << handed_up.p;
@@
print("%s:%s:%s" % (p[0].file, p[0].line, p[0].current_element))

@script:python@
p << variable.p;
@@
print("%s:%s:%s" % (p[0].file, p[0].line, p[0].current_element))

@script:python@
p << declared.p;
@@
print("%s:%s:%s" % (p[0].file, p[0].line, p[0].current_element))
