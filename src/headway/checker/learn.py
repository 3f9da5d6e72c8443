"""What each kind of task asks of the pools: learned by running the real code once, every request answered.

It does not search and proposes no schedule. The function runs with its tasks one after the other, and a
request that would wait is answered with an element made on the spot, so nobody ever waits. A task whose
future depends on its own results alone does here what it does in every schedule. Tasks that run the
same on the same are run once: what is learned of one holds for all (`shared` and the ledger see to it).

Whatever does not fit that picture is `NotPlain`, with the reason in words: the schedules are then run one
by one (`explore`). Bound: one run of each kind of task, of `_MOST` operations at most.

Source: the local state of a task is the sequence of its own results; here each result is a grant.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar, final

from headway.checker.facts import PoolFacts
from headway.checker.ledger import Ledger, Local
from headway.checker.trial import Settings
from headway.core.mm.account import Account
from headway.core.mm.composite import Callables
from headway.core.mm.gfp import Gfp
from headway.core.plan import Call, Now, Offload, Park, Plan
from headway.errors import HeadwayError
from headway.runtimes import scopes
from headway.runtimes.simulator import Cancelled, Task

T = TypeVar("T")

_MOST = 2000  # operations of one task


class NotPlain(HeadwayError):
    """The code cannot be learned this way; the message says why."""


class Enough(BaseException):
    """Thrown into a task that need not go on: it has said too much, or the reason is known."""


@final
@dataclass(slots=True)
class Learned:
    """One task of the run: who it is, what it did, and which tasks it started after how many operations."""

    number: int
    local: Local
    kind: int  # the number of the first task of its kind: the one that was run
    children: list[tuple[int, int]] = field(default_factory=list)
    started: list[tuple[int, int]] = field(
        default_factory=list
    )  # the same, counting only what waits or gives


@final
class _Guard:
    """Mutual exclusion where one task runs at a time: nothing to do."""

    def acquire(self, blocking: bool = True) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc: object) -> None:
        pass


class Script(Protocol):
    """What decides which tasks are run, and how requests end that may end in more than one way."""

    def runs(self, number: int) -> bool:
        """Whether a task is run, when its turn comes."""

    def meets(self, probe: Probe, number: int, what: tuple[Any, ...]) -> str:
        """How an operation of a task ends: ``granted``, ``none``, ``PoolTimeout``, ``Cancelled``, ``done``.

        Raises: Enough where the task need not go on.
        """


_MEMALLOC = int(Gfp.MEMALLOC)
_NOBODY: Any = None  # what a task is made of that no simulator runs


@final
class Probe:
    """The runtime of pools while tasks are learned: it answers each request at once."""

    locked = True

    def __init__(self, settings: Settings, script: Script | None = None) -> None:
        self._settings = settings
        self._script = script
        self._current: Task | None = None
        self._todo: list[tuple[Task, Callable[..., Any], tuple[Any, ...], contextvars.Context]] = []
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._kinds_seen: dict[int, int] = {}  # by id; the locals keep them alive
        self._guards = 0
        self._operations = 0
        self._done = 0
        self.functions: dict[int, Callable[..., Any]] = {}
        self._requests = 0
        self._hidden: list[Any] = []  # a reserve, as long as a request is to find none
        self._why: str | None = None
        self._waiting: list[PoolFacts] = []  # the pools asked, the outermost request first
        self.ledger = Ledger(lambda: self._current, lambda who: None)
        self.tasks: list[Learned] = []
        self.pools: list[PoolFacts] = []
        self.notes: list[str] = []
        self.outcomes: dict[int, BaseException] = {}  # of a script's tasks: what ended them badly

    def learn(self, program: Callable[[], Any]) -> None:
        """Run it all.

        Raises: NotPlain if what a task does depends on more than its own requests, or cannot be seen.
        """
        with self._settings.ambient(self):
            try:
                self._add(program, (), None)
            except (HeadwayError, Enough) as error:
                raise NotPlain(self._why or str(error)) from error
            while self._todo:
                task, fn, args, context = self._todo.pop(0)
                if self._script is None or self._script.runs(task.number):
                    self._run(task, fn, args, context)
        budgets = [facts for facts in self.pools if facts.is_budget]
        if self._guards != len(self.pools) - len(budgets) + bool(budgets):  # they share one
            raise NotPlain("it uses more than pools: a zone, a cache or a device")
        for facts in self.pools:
            if facts.pool.closed:
                raise NotPlain(f"pool {facts.name} is closed in it")
            if facts.is_resized:
                raise NotPlain(f"pool {facts.name} is resized in it")

    # -- tasks -----------------------------------------------------------------------------------

    def spawn(self, fn: Callable[..., Any], *args: Any) -> None:
        parent = self._current
        assert parent is not None
        mine = self.tasks[parent.number - 1]
        done = len(mine.local.history)
        number = self._add(fn, args, mine.local)
        mine.children.append((done, number))
        mine.started.append((self._done, number))

    def _add(self, fn: Callable[..., Any], args: tuple[Any, ...], parent: Local | None) -> int:
        called = getattr(fn, "__name__", type(fn).__name__)
        name = self.ledger.note(called, fn, args, parent)
        if self.ledger.unmergeable is not None:
            self.refuse(self.ledger.unmergeable)
        local = self.ledger.locals[-1]
        number = len(self.ledger.locals)
        kind = self._kinds_seen.get(id(local.identity))  # told by the very tuple: no hash of code
        if kind is None:
            kind = self._kinds.setdefault(local.identity, number)
            self._kinds_seen[id(local.identity)] = kind
        self.tasks.append(Learned(number, local, kind))
        if kind == number:
            task = Task(number, name, _NOBODY)
            self.functions[number] = fn
            self._todo.append((task, fn, args, contextvars.copy_context()))
        return number

    def _run(
        self,
        task: Task,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self._current, self._operations, self._done = task, 0, 0
        try:
            if inspect.iscoroutinefunction(fn):
                _drive(fn(*args), context)
            else:
                context.run(fn, *args)
        except (Exception, SystemExit, Enough, Cancelled) as error:
            if self._script is not None and self._why is None:
                self.outcomes[task.number] = error
                return
            raise NotPlain(self._why or f"{task.name} raises {type(error).__name__}") from error
        finally:
            self._current = None
        if self._why is not None:  # it caught what was thrown
            raise NotPlain(self._why)

    def refuse(self, why: str) -> NoReturn:
        self._why = self._why or why
        raise Enough

    # -- pools -----------------------------------------------------------------------------------

    def adopt(self, pool: Any) -> None:
        if isinstance(pool, Account):
            self._adopt_budget(pool)
            return
        is_fixed = hasattr(pool, "capacity")
        if not is_fixed and type(pool._backend) is not Callables:
            self.refuse(f"pool {pool.name} stands on something that may itself wait")
        name = self.ledger.adopt(pool)
        if is_fixed and self._settings.mirrored:
            pool._reserve.reverse()
        sample = pool._reserve[0] if is_fixed else None
        self.pools.append(PoolFacts(pool, name, pool.min_count, is_fixed, sample))
        pool.watch(self._seen)

    def _adopt_budget(self, budget: Account) -> None:
        name = self.ledger.adopt(budget)
        face = self.ledger.pools[-1]
        if not face.is_flat:
            self.refuse(f"budget {name} has more than a limit: a reserve, levels, or a reclaimer")
        self.pools.append(PoolFacts(face, name, budget.capacity, True))
        budget.watch(self._seen)

    def adopt_device(self, device: Any) -> NoReturn:
        self.refuse("it uses a device, whose requests may fail")

    def _seen(self, event: Any) -> None:
        """The second hook of each pool, after the ledger's."""
        self._operations += 1
        if self._operations > _MOST:
            self.refuse(f"a task does more than {_MOST} operations")
        facts = self.pools[self.ledger.index(event.pool)]
        task = self._current
        if task is None:
            self.refuse(f"pool {facts.name} is used where no task runs")
        match event.kind:
            case "request":
                self._requests += 1
                self._waiting.append(facts)
                facts.asked = event.count
                if facts.is_budget:
                    self._check_budget(facts, event)
                larger = event.count > facts.size
                if larger and (self._script is None or not facts.takes_any_request):
                    self.refuse(f"{task.name} asks for more at once than {facts.name} has")
                if self._script is not None:
                    self._asks(task, facts, event.count, event.gives_up)
                elif event.gives_up:
                    self.refuse(f"{task.name} asks {facts.name} in a way that may come to nothing")
            case "release":
                if self._script is not None:
                    self._meets(task, ("give", self.ledger.index(event.pool), event.count))
                self._done += 1
            case "grant" if not self._waiting:
                self.refuse(f"{task.name} takes from the reserve of {facts.name} directly")
            case "transfer":
                self.refuse(f"{task.name} passes an element of {facts.name} on")

    def _check_budget(self, facts: PoolFacts, event: Any) -> None:
        if event.part:
            self.refuse("it asks for several budgets at once")
        if int(event.mask) & _MEMALLOC:
            self.refuse(f"a request to {facts.name} goes before others")
        if event.gives_up:
            self.refuse(f"a request to budget {facts.name} may come to nothing")

    def _meets(self, task: Task, what: tuple[Any, ...]) -> str:
        assert self._script is not None
        return self._script.meets(self, task.number, what)

    def _asks(self, task: Task, facts: PoolFacts, count: int, gives_up: str) -> None:
        """Make a request end as the script says."""
        if not facts.is_fixed:
            self.refuse(f"{facts.name} has an allocator, and some task asks in more ways than one")
        result = self._meets(task, ("take", self.pools.index(facts), count, gives_up))
        self._done += 1
        pool = facts.pool
        if result == "Cancelled":
            raise Cancelled
        if result == "granted":
            facts.supply(max(0, count - pool.reserve_count))
        else:
            self._hidden, pool._reserve[:] = [*pool._reserve], []

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out; a wait ends at once, with an element made for it."""
        before, depth = self._requests, len(self._waiting)
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                request = plan.throw(error) if error is not None else plan.send(answer)
            except StopIteration as end:
                if self._requests == before:
                    self.refuse("it does more with pools than to take and to give back")
                self._ended(depth, end.value)
                result: T = end.value
                return result
            except Enough:
                raise
            except BaseException as failure:
                self._ended(depth, failure)
                raise
            answer = error = None
            try:
                answer = self._answer(request)
            except Exception as failure:
                error = failure

    def _ended(self, depth: int, result: Any) -> None:
        if self._hidden and self._waiting:
            self._waiting[-1].pool._reserve.extend(self._hidden)
            self._hidden = []
        del self._waiting[depth:]
        self.ledger.ended(result)

    async def awaited(self, plan: Plan[T]) -> T:
        """`run` for a coroutine."""
        return self.run(plan)

    def _answer(self, request: Any) -> Any:
        if isinstance(request, Call | Offload):
            with scopes.applied(request.scope):
                return request.effect(*request.args)
        if isinstance(request, Now):
            return 0.0
        if isinstance(request, Park) and self._waiting:
            facts = self._waiting[-1]
            if self._hidden or request.timeout_s is not None:
                return False
            if not facts.is_fixed:
                self.refuse(f"the allocator of {facts.name} gives nothing")
            while not request.ticket.woken:
                facts.supply(facts.asked if facts.is_budget else 1)
            return True
        self.refuse(f"it asks for {type(request).__name__}")

    def guard(self) -> _Guard:
        self._guards += 1
        return _Guard()

    def point(self, who: str) -> None:
        pass

    def scope(self) -> int:
        return scopes.current()

    def owner(self) -> str:
        return self._current.name if self._current is not None else "main"

    def where(self) -> tuple[str, ...]:
        return scopes.where()

    def now(self) -> float:
        return 0.0

    def key(self, element: object) -> int:
        return id(element)

    def report(self, message: str, *, once: bool = False) -> None:
        if message not in self.notes:
            self.notes.append(message)


def _drive(coroutine: Any, context: contextvars.Context) -> None:
    """Run a coroutine to its end; a bare ``yield`` in it only lets others go first."""
    try:
        while True:
            asked = context.run(coroutine.send, None)
            if asked is not None:
                raise NotPlain(f"a coroutine waits for {type(asked).__name__}, which is no pool's")
    except StopIteration:
        return
    finally:
        coroutine.close()
