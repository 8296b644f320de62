"""The policy that learns: as eager, with batches cut so that a latency target holds.

Its rules, in the order in which they are asked:

1. **Cut.** An idle worker takes what is there, at most ``batch_size``, as with eager.
2. **Target.** If the oldest request would not be answered in time in such a batch, take as many as it can be answered
   with in time, provided that all who wait can then be answered in time by batches cut in the same way, and those after
   them who will have come meanwhile. If they cannot, the target is lost whatever is done, and rule 1 gives the most
   requests per second: more batches are more work, and cutting small under load makes the next ones late as well.
3. **Best size.** If smaller batches give more answers a second than ``batch_size`` (caches overflow, cores are shared),
   those are cut: ``core/best_size.py`` finds the size by cutting with another in turns. With a target another size is
   cut only where everybody who waits could be answered in time even if it took as long as the best one.
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

from mlserve.core.best_size import BestSize
from mlserve.core.costs import CostModel
from mlserve.core.policy import NOTHING, RESOLUTION, SETTLE, Decision, View

LEARN_EVERY = 0.0005  # seconds: at 20,000 batches/s most say nothing new, and 2,000 cost 0.3 % of a core
REFIT_EVERY = 0.2  # seconds
EARLY_REFITS = 64  # batches after whose 1st, 2nd, 4th … the model is fitted at once
GAPS = 32  # last times at which clients came back
MARGIN = 1.1  # times its usual cost that a batch is allowed for when nobody but the policy would have it wait
TRUST, DISTRUST = 4, -64  # a wait in vain costs 2; below 0 nobody is waited for, and each batch gives 1 back


class Adaptive:
    """See the module. ``delay`` and ``target`` are in seconds; a target of 0 is none."""

    def __init__(self, batch_size: int, delay: float, target: float = 0.0) -> None:
        self.batch_size = batch_size
        self.delay = delay
        self.target = target
        self.costs = CostModel(batch_size)
        self._sizes = BestSize(batch_size)
        self.comes_back = float("inf")  # seconds within which clients that ask again at once do
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._trust = 0
        self._curious = False  # whether the next batch that is cut is looked at: one for each that was learned from
        self._learned = 0
        self._rate_in = 0.0  # requests that come in a second
        self._came = 0
        self._came_since = float("-inf")
        self._next_learn = self._next_refit = float("-inf")

    @property
    def best(self) -> int:
        """The largest batch that is cut, but for others that are tried."""
        return self._sizes.best

    def decide(self, view: View) -> Decision:
        """See the class. Changes nothing: what is learned comes through :meth:`answered` and :meth:`sent`."""
        pending = view.pending
        if not pending:
            return NOTHING
        most = self._sizes.cap
        if self.target and most != self.best and not self._may_try(view, most):
            most = self.best
        if not view.idle:
            if pending < most or not view.room or (self.target and not self._may_be_early(view, most)):
                return NOTHING
            return Decision(most)
        if pending < most:
            return self._settle(view, most) or Decision(self._in_time(view, view.share(most)))
        return Decision(self._in_time(view, view.share(most)))

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

    def _may_try(self, view: View, take: int) -> bool:
        """Whether all are answered in time even if ``take`` of them, of whom little is known, take long."""
        usual = self.costs.at(self.best)
        if view.waits is None or not usual:
            return False
        waits, then = view.waits(), usual * max(1.0, 2 * take / self.best) + (0.0 if view.idle else usual)
        if waits[0] + then > self.target:
            return False
        back = max(0, view.expected - view.pending)  # clients that ask again about now
        rest = [wait + then for wait in waits[take:]] + [then] * back
        return not rest or cut(rest, self.best, self.target, self.costs, self._rate_in) > 0

    def _settle(self, view: View, most: int) -> Decision | None:
        come = min(view.expected, most)
        if view.pending >= come:
            return None
        shortly = patient = view.took * SETTLE
        if view.workers == 1 and self._trust >= 0 and self.comes_back <= self.costs.fixed / 2:
            patient = max(patient, self.comes_back)
        left = min(self.delay, patient) - view.quiet
        if self.target and view.oldest + self.costs.at(1) <= self.target:
            left = min(left, self._spare(view, most, come - view.pending, min(self.delay, shortly) - view.quiet))
        return Decision(0, left) if left > RESOLUTION else None

    def _spare(self, view: View, most: int, missing: int, shortly: float) -> float:
        """How long to wait for ``missing`` clients where the target is not lost yet; ``shortly`` is as long as eager.

        If they would be late for having missed this batch, eager's wait is the better choice: or some would find the
        worker busy with the others and the others with them, each batch too late, for as long as they all ask again.
        """
        spare = self.target - view.oldest - self.costs.at(view.pending)
        if spare >= 0:
            after = self.costs.at(view.pending) + self.costs.at(missing)
            spare = max(spare - (MARGIN - 1) * self.costs.at(view.pending), 0.0)
            return spare if after <= self.target else max(spare, shortly)
        waits = [*view.waits(), *[0.0] * missing] if view.waits is not None else []
        return 0.0 if waits and cut(waits, most, self.target, self.costs, 0.0) else shortly

    # -- learning -----------------------------------------------------------------------------------------------------

    def answered(self, size: int, seconds: float, now: float) -> None:
        """A batch of ``size`` came back ``seconds`` after the worker could begin with it."""
        self._came += size
        self._sizes.answered(size, seconds, now)
        if now < self._next_learn or size > self.batch_size:
            return
        self._next_learn, self._curious = now + LEARN_EVERY, True
        self.costs.observe(size, seconds)
        self._learned += 1
        early = self._learned <= EARLY_REFITS and self._learned & (self._learned - 1) == 0
        if early or now >= self._next_refit:
            self._next_refit = now + REFIT_EVERY
            self._refit(now)

    def sent(self, size: int, expected: int, gap: float, quiet: float) -> None:
        """A batch was cut. Its last request came ``gap`` seconds after an answer, the last answer is ``quiet`` ago."""
        self._sizes.sent()
        if not self._curious:
            return
        self._curious = False
        self._gaps.append(gap)
        if self.comes_back < float("inf") and size < min(expected, self._sizes.cap) and quiet >= self.comes_back:
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
        self._sizes.watch(self.costs.at(self.best), now)


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
