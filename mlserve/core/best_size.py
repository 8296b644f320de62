"""Which largest batch gives the most answers a second: halves, or doubles, are tried against the best that is known.

Each is a duel (``core/duel.py``): turns of the best, the other, the best and so on, each about one full batch of the
best long. A turn of the other is compared with the two beside it, so what the machine does to both (stolen cores,
another model's load) cancels. A duel is over as soon as the difference is plain against what turns differ by: after one
turn of the other if it gives 28 % more, after two if 10. If the other is only a little worse, the one beyond it is
tried against the best as well: 8 may beat 4 by as little as 4 beats 2, and 1 all of them.

Simulated with figures of EfficientNet on two cores (two batches at once: 36 answers a second in batches of 8, 64 of 1
or 2), batches that are off by 2 to 15 % and a host that takes 40 % of the cores for seconds: within 5 % of the best
after 4 to 6 s or 50 to 60 batches, nine of ten within 10 s, and then 97 to 99.5 % of what the best size gives. With one
batch at a time (26 and 30) it takes 6 s on a steady machine, 14 on an unsteady one and may take minutes on a wild one.
Where the full size is the best, 97 to 99.9 % of its answers in the first minute (``tests/unit/test_best_size.py``).

Trying costs answers only where the other is worse, and such a duel is over soon. Then sizes are left alone until what
was lost is 3 % of the time, and for twice as long after each comparison that changed nothing, with what it lost at most
0.75 %. If batches of the best size cost a quarter more or less than they did, they are compared again soon: on the
machine above that keeps the loss at 0.6 to 1.5 % in minutes 2 to 10.
"""

from __future__ import annotations

from mlserve.core.duel import NOISE, SURE, SURER, Duel, Turn

COLD = 2  # batches of a size never seen that do not count: TorchScript compiles in them
NEAR = -0.1  # how much fewer a size may give for the one beyond it to be tried too
VOID = 2.0  # seconds without load in a turn, and it says nothing
SHARE = 0.03  # of the throughput, that comparing may lose
PATIENCE = 4.0  # times longer to pay for it, at most
REST, LONGEST = 4.0, 120.0  # seconds between comparisons
RETRY = 0.5  # seconds after which a duel is begun again that the load did not allow
CHANGED = 1.25  # times its cost that makes the best size worth comparing again


class BestSize:
    """``best`` is the largest batch that should be cut, ``cap`` the one to cut now: another while it is tried."""

    def __init__(self, largest: int) -> None:
        self.best = self.cap = largest
        self._sizes = [largest >> halvings for halvings in range(largest.bit_length())]
        self._seen = {largest}
        self._out = 0  # batches in flight
        self._duel: Duel | None = None
        self._turn: Turn | None = None
        self._typical = largest  # requests of a batch when the duel began
        self._up = False  # whether larger sizes are tried
        self._found = False  # whether all sizes in question have been compared once
        self._moved = False  # whether the best size changed since the last rest
        self._lost = 0.0  # seconds since then
        self._next = float("-inf")
        self._owed = float("-inf")  # when what was lost will be SHARE of the time since
        self._rest = REST
        self._noise = NOISE
        self._cost = 0.0  # of a batch of the best size when that was found

    def sent(self) -> None:
        """A batch was cut."""
        self._out += 1

    def answered(self, size: int, seconds: float, now: float) -> None:
        """A batch of ``size`` came back ``seconds`` after the worker could begin with it."""
        if self._out:
            self._out -= 1
        duel, turn = self._duel, self._turn
        if duel is None or turn is None:
            if now >= self._next:
                self._begin(size, now)
            return
        turn.add(size, now - seconds, now)
        if now - turn.begun > VOID + 4 * turn.busy + 12 * seconds:
            self._out = max(0, self._out - turn.old)
            self._lost += duel.lost
            self._stop(now, RETRY)
        elif turn.over or duel.hopeless(turn):
            self._next_turn(duel, turn, now)

    def watch(self, cost: float, now: float) -> None:
        """A batch of the best size costs ``cost`` now: compare again soon if that is another than it was."""
        if self._duel is not None or not self._cost:
            self._cost = cost
        elif not 1 / CHANGED < cost / self._cost < CHANGED:
            self._cost, self._rest = cost, REST
            self._next = min(self._next, max(now + RETRY, self._owed))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, size: int, now: float) -> None:
        """Begin with halves of what batches are like, or else, with the best size reached, with its double."""
        self._typical = min(size, self.best)
        smaller = [one for one in self._sizes if 2 * one <= self._typical + 1 and one < self._typical]
        self._up = not smaller
        if smaller:
            self._challenge(smaller[0], now)
        elif size >= self.best < self._sizes[0]:
            self._challenge(self._beyond(self.best), now)
        else:
            self._next = now + RETRY

    def _beyond(self, size: int) -> int:
        """The next size to try after ``size``; 0 if there is none."""
        at = self._sizes.index(size) + (-1 if self._up else 1)
        return self._sizes[at] if 0 <= at < len(self._sizes) else 0

    def _challenge(self, other: int, now: float) -> None:
        settled = self._duel is not None
        self._duel = duel = Duel(self.best, other, self._noise, SURER if self._found else SURE)
        self._take_turn(duel, self.best, now, settled)

    def _take_turn(self, duel: Duel, cap: int, now: float, settled: bool = True) -> None:
        before, old = self.cap, 0 if settled and cap == self.cap else self._out
        cold = 0 if cap in self._seen else COLD
        self._seen.add(cap)
        self.cap = cap
        enough = max(self._typical, duel.other) * max(1, self._out)
        self._turn = Turn(cap, enough, now, before, old, cold)

    def _next_turn(self, duel: Duel, turn: Turn, now: float) -> None:
        self._out = max(0, self._out - turn.old)
        if not duel.add(turn):
            self._lost += duel.lost
            self._stop(now, REST if self._lost or self._up or duel.gains else RETRY)
            return
        won = duel.won()
        if won is None:
            self._take_turn(duel, duel.other if turn.cap == duel.best else duel.best, now)
        else:
            self._end(duel, won, now)

    def _end(self, duel: Duel, won: bool, now: float) -> None:
        self._lost += duel.lost
        self._noise = duel.spread
        if won:
            self.best = self._typical = duel.other
            self._moved, self._cost = True, 0.0
        following = self._beyond(duel.other) if won or duel.gain > NEAR else 0
        if not following and not self._up and not self._moved:
            self._up = True
            following = self._beyond(self.best)
        if following:
            self._challenge(following, now)
            return
        self._found = True
        self._rest = REST if self._moved else min(2 * self._rest, LONGEST)
        self._stop(now, self._rest)

    def _stop(self, now: float, rest: float) -> None:
        """Compare again after ``rest`` seconds, or as many as pay for what was lost."""
        self._duel = self._turn = None
        self.cap = self.best
        self._owed = now + self._lost / SHARE * min(self._rest / REST, PATIENCE)
        self._lost, self._moved = 0.0, False
        self._next = max(now + rest, self._owed)
