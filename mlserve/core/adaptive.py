"""The policy that learns: as eager, with batches cut so that a latency target holds.

Its rules, in the order in which they are asked:

1. **Cut.** An idle worker takes what is there, at most ``batch_size``, as with eager.
2. **Target.** If the oldest request would not be answered in time in such a batch, take as many as it can be answered
   with in time, provided that all who wait can then be answered in time by batches cut in the same way, and those after
   them who will have come meanwhile. If they cannot, the target is lost whatever is done, and rule 1 gives the most
   requests per second: more batches are more work, and cutting small under load makes the next ones late as well.
3. **Best size.** If half as large a batch has been measured to be at least 5 % cheaper per request, it is the largest
   that is cut. (Caches overflow; eager would go on with the full size.) One full batch in 32 to 256 is cut at another
   size to know; with a target none is, because those behind it are answered later.
4. **Second batch.** A busy worker gets a full batch early, as with eager, unless it might then be late for the target
   where a smaller one, cut later, would not.
5. **Coming back.** Clients that ask again at once are waited for as long as they have been seen to take, if merging two
   batches saves at least twice that; eager waits 2 % of a batch's time. Only where there is one worker: with more,
   those who come back may find another one idle, and waiting for them was measured to lose up to 13 %.

Rule 2 takes as many as possible because, with ``cost(n) = a*n + b``, a queue that can be answered in time at all can be
by cutting greedily: a smaller first batch never makes the others earlier. So wherever eager would hold the target this
policy does what eager does, and where only smaller batches would hold it, it cuts those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mlserve.core.costs import CostModel
from mlserve.core.policy import NOTHING, RESOLUTION, SETTLE, Decision, View

LEARN_EVERY = 0.0005  # seconds: at 20,000 batches/s most say nothing new, and 2,000 cost 0.3 % of a core
REFIT_EVERY = 0.2  # seconds
EARLY_REFITS = 64  # batches after whose 1st, 2nd, 4th … the model is fitted at once
TRIALS = 8  # batches of a size before it is compared with another
WORTH = 1.05  # how much better a size must be: the medians of 8 batches differ by 1 or 2 % by chance
PROBE_EVERY = 32  # full batches between two of a size that is not known well yet
RECHECK_EVERY = 256  # the same for a size that is
GAPS = 32  # last times at which clients came back
TRUST, DISTRUST = 4, -64  # a wait in vain costs 2; below 0 nobody is waited for, and each batch gives 1 back


class Adaptive:
    """See the module. ``delay`` and ``target`` are in seconds; a target of 0 is none."""

    def __init__(self, batch_size: int, delay: float, target: float = 0.0) -> None:
        self.batch_size = batch_size
        self.delay = delay
        self.target = target
        self.costs = CostModel(batch_size)
        self.best = batch_size  # the largest batch that is cut
        self.comes_back = float("inf")  # seconds within which clients that ask again at once do
        self._probe = 0  # size to try next; 0 is none
        self._full = 0  # full batches since the last probe
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._trust = 0
        self._curious = False  # whether the next batch that is cut is looked at: one for each that was learned from
        self._learned = 0
        self._rate_in = 0.0  # requests that come in a second
        self._came = 0
        self._came_since = float("-inf")
        self._next_learn = self._next_refit = float("-inf")

    def decide(self, view: View) -> Decision:
        """See the class. Changes nothing: what is learned comes through :meth:`answered` and :meth:`sent`."""
        pending = view.pending
        if not pending:
            return NOTHING
        most = self._probe or self.best
        if not view.idle:
            if pending < most or not view.room or (self.target and not self._may_be_early(view, most)):
                return NOTHING
            return Decision(most)
        if pending < most:
            return self._settle(view, most) or Decision(self._in_time(view, pending))
        return Decision(self._in_time(view, most))

    # -- rules --------------------------------------------------------------------------------------------------------

    def _in_time(self, view: View, take: int) -> int:
        """``take``, or fewer if that is what holds the target for everybody."""
        if not self.target or view.oldest + self.costs.at(take) <= self.target or view.waits is None:
            return take
        if view.oldest + self.costs.at(1) > self.target:
            return take
        return cut(view.waits(), take, self.target, self.costs, self._rate_in) or take

    def _may_be_early(self, view: View, take: int) -> bool:
        late = view.oldest + self.costs.at(1) > self.target
        # The batch that is being computed is no larger than this one.
        return late or view.oldest + 2 * self.costs.at(take) <= self.target

    def _settle(self, view: View, most: int) -> Decision | None:
        come = min(view.expected, most)
        if view.pending >= come:
            return None
        limit = view.took * SETTLE
        if view.workers == 1 and self._trust >= 0 and self.comes_back <= self.costs.fixed / 2:
            limit = max(limit, self.comes_back)
        left = min(self.delay, limit) - view.quiet
        if self.target:
            left = min(left, self.target - view.oldest - self.costs.at(come))
        return Decision(0, left) if left > RESOLUTION else None

    # -- learning -----------------------------------------------------------------------------------------------------

    def answered(self, size: int, seconds: float, now: float) -> None:
        """A batch of ``size`` came back ``seconds`` after the worker could begin with it."""
        self._came += size
        if size == self._probe:
            self._probe = 0
        if now < self._next_learn or size > self.batch_size:
            return
        self._next_learn, self._curious = now + LEARN_EVERY, True
        self.costs.observe(size, seconds)
        self._learned += 1
        if size == self.best and not self.target:
            self._full += 1
            self._choose_probe()
        early = self._learned <= EARLY_REFITS and self._learned & (self._learned - 1) == 0
        if early or now >= self._next_refit:
            self._next_refit = now + REFIT_EVERY
            self._refit(now)

    def sent(self, size: int, expected: int, gap: float, quiet: float) -> None:
        """A batch was cut. Its last request came ``gap`` seconds after an answer, the last answer is ``quiet`` ago."""
        if not self._curious:
            return
        self._curious = False
        self._gaps.append(gap)
        if self.comes_back < float("inf") and size < min(expected, self.best) and quiet >= self.comes_back:
            self._trust = self._trust - 2 if self._trust > 1 else DISTRUST
        elif self._trust < TRUST:
            self._trust += 1

    def _refit(self, now: float) -> None:
        self.costs.refit()
        if now >= self._came_since + REFIT_EVERY:
            self._rate_in = self._came / (now - self._came_since)
            self._came, self._came_since = 0, now
        if len(self._gaps) >= GAPS // 2:
            self.comes_back = 1.25 * sorted(self._gaps)[len(self._gaps) * 4 // 5]
        best = size = self.batch_size
        while size > 1:
            size //= 2
            if self._known(size) and self._known(best) and self._rate(size) > WORTH * self._rate(best):
                best = size
        self.best = best

    def _known(self, size: int) -> bool:
        return self.costs.batches_of(size) >= TRIALS

    def _rate(self, size: int) -> float:
        return size / max(self.costs.at(size), 1e-9)

    def _choose_probe(self) -> None:
        """Now and then try half the best size, or twice that: what is never cut is never known."""
        for size in (self.best // 2, min(self.best * 2, self.batch_size)):
            every = RECHECK_EVERY if self._known(size) else PROBE_EVERY
            if size and size != self.best and self._full % every == (0 if size < self.best else every // 2):
                self._probe = size


def cut(waits: Sequence[float], take: int, target: float, costs: CostModel, rate: float = 0.0) -> int:
    """How many of those who have waited so long (oldest first) to send now, at most ``take``, so that one worker can
    answer all of them within ``target``, and those who come meanwhile at ``rate`` a second; 0 if it cannot."""
    first = start = 0
    then = 0.0  # seconds from now on
    while start < len(waits):
        size = min(take, len(waits) - start)
        while size and waits[start] + then + costs.at(size) > target:
            size -= 1
        if not size:
            return 0
        first = first or size
        then += costs.at(size)
        start += size
    coming = min(int(rate * then), take)
    return first if not coming or then + costs.at(coming) <= target else 0
