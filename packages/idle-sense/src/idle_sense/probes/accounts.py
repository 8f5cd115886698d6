"""How much of something (processor time, bytes of disk) guests have spent, from looks at their processes. Pure arithmetic.

A process that ended, and was waited for, has handed what it spent to the one that waited: to its parent, or to this program.
So the sum over the living, with what each has inherited from the dead, loses nothing of short-lived children, which a
sum of own amounts would put down to the owner (0.08 s seen of 4.22 s spent). Where a group counts for a process, the
process itself does not, so that nothing is counted twice. Its parent still inherits from it: at looks between which such a
one ended, nothing that its parent inherited counts, as it cannot be told apart. So guests had better be in groups all of
them, or none. Where the truth is not known the smaller number is taken: what is left over counts as the owner's.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

LONGEST_LINE = 64
"""Of ancestors that are followed."""


class Amount(NamedTuple):
    own: float
    inherited: float
    """From descendants that were waited for; a system that does not tell the two apart puts all of it here."""

    @property
    def whole(self) -> float:
        return self.own + self.inherited


class Share(NamedTuple):
    """One process at one look. The amounts only ever grow."""

    pid: int
    parent: int
    started: float
    """With the pid it names the process for good."""
    amount: Amount
    metered: bool
    """A group counts for it."""


class Look(NamedTuple):
    """This program's own amount, read first; then parents before their children, so that what moves from a child to its
    parent in the meantime is seen late rather than twice."""

    own: Amount
    own_metered: bool
    shares: Mapping[int, Share]
    metered: float | None
    """What the groups counted so far, in all; None: there never were any."""
    lives: Callable[[Share], bool]
    """Whether a process that is no guest any more still runs."""


class Account:
    """Adds up one quantity. ``own_pid``: this program's."""

    def __init__(self, own_pid: int) -> None:
        self._own_pid = own_pid
        self._before: Look | None = None
        self._crossing: frozenset[tuple[int, float]] = frozenset()
        self._debts: dict[int, float] = {}
        self._unclear: frozenset[int] = frozenset()
        """Who inherits, at this look or the next, what cannot be told from what groups have counted."""
        self._ghosts: dict[tuple[int, float], tuple[Share, int]] = {}
        """No guests any more, but alive: what they took is still to be inherited from them, and by whom."""
        self._metered_last = 0.0
        self._total = 0.0

    def advance(self, look: Look) -> float:
        """What was spent since the first look. Never falls."""
        before, self._before = self._before, look
        crossing = self._crossing = frozenset(self._find_crossing(look))
        if before is None:
            return self._total
        spent, handed = self._grown(look, before)
        debts, self._debts = self._debts, {}
        taken_off: dict[int, float] = {}
        unclear: set[int] = set()
        ghosts, self._ghosts = self._ghosts, {}
        leaving = [
            (gone, self._heir(gone, look, before))
            for gone in before.shares.values()
            if not _same(look.shares.get(gone.pid), gone)
        ]
        for gone, heir in (*leaving, *ghosts.values()):
            if heir is None or heir not in handed:
                continue
            if look.lives(gone):
                self._ghosts[gone.pid, gone.started] = (gone, heir)
            elif gone.metered:
                unclear.add(heir)
            else:
                # The dead were counted while they lived; what they had still to settle, their heir has.
                amount = gone.amount.whole + debts.get(gone.pid, 0.0)
                taken_off[heir] = taken_off.get(heir, 0.0) + amount
        unclear_before, self._unclear = self._unclear, frozenset(unclear)
        metered = max(0.0, (look.metered or 0.0) - (before.metered or 0.0))
        # Children that were born, counted by a group, and waited for since the look before the last one are in both.
        twice, self._metered_last = metered + self._metered_last, metered
        for pid, amount in handed.items():
            # One from a group that ended left what the group has counted, and its own dead children's with it, at this
            # look or at the next one.
            if pid in unclear or pid in unclear_before:
                self._debts[pid] = taken_off.get(pid, 0.0)
                continue
            if (pid, self._started(pid, look)) in crossing:
                amount = max(0.0, amount - twice)  # noqa: PLW2901 - what surely came from outside of groups
            # A child that ended between the looks at its parent and at itself is missed by both: its parent's next
            # look settles that. What is not settled then was never inherited (a parent that ignores its children's ends).
            settled = amount - taken_off.get(pid, 0.0) - debts.get(pid, 0.0)
            if settled < 0:
                self._debts[pid] = min(-settled, taken_off.get(pid, 0.0))
            spent += max(0.0, settled)
        self._total += spent + metered
        return self._total

    def _grown(self, look: Look, before: Look) -> tuple[float, dict[int, float]]:
        """What the living spent themselves, and by how much more each has inherited."""
        spent = 0.0
        handed: dict[int, float] = {}
        if not look.own_metered and not before.own_metered:
            spent += max(0.0, look.own.own - before.own.own)
            handed[self._own_pid] = look.own.inherited - before.own.inherited
        for pid, share in look.shares.items():
            if share.metered:
                continue
            known = before.shares.get(pid)
            if not _same(known, share):
                # It may have been let go of, and be a guest again.
                known, _ = self._ghosts.pop((pid, share.started), (None, 0))
            if known is not None and known.started == share.started:
                if not known.metered:
                    spent += max(0.0, share.amount.own - known.amount.own)
                    handed[pid] = share.amount.inherited - known.amount.inherited
            elif self._counted_from_start(share, look, before):
                spent += share.amount.own
                handed[pid] = share.amount.inherited
        return spent, handed

    def _counted_from_start(self, share: Share, look: Look, before: Look) -> bool:
        """A child of ours, or of a process that was a guest's already; else it had a life before it was added."""
        for _ in range(LONGEST_LINE):
            if share.parent == self._own_pid:
                return True
            known = before.shares.get(share.parent)
            if known is not None:
                return not known.metered
            parent = look.shares.get(share.parent)
            if parent is None:
                return False
            share = parent
        return False

    def _heir(self, gone: Share, look: Look, before: Look) -> int | None:
        """Who was handed what the process had spent: the nearest ancestor that lives. None: nobody of ours."""
        for _ in range(LONGEST_LINE):
            if gone.parent == self._own_pid:
                return self._own_pid
            parent = before.shares.get(gone.parent)
            if parent is None:
                return None
            if _same(look.shares.get(parent.pid), parent):
                return parent.pid
            gone = parent
        return None

    def _find_crossing(self, look: Look) -> Iterator[tuple[int, float]]:
        """Those outside of groups that have children inside: this program, as it is the one that added the groups, and whoever
        is seen to have some, now or earlier."""
        if look.metered is not None:
            yield self._own_pid, 0.0
        for pid, started in self._crossing:
            if pid == self._own_pid or (pid in look.shares and look.shares[pid].started == started):
                yield pid, started
        for share in look.shares.values():
            if share.metered and share.parent in look.shares:
                yield share.parent, look.shares[share.parent].started

    def _started(self, pid: int, look: Look) -> float:
        return look.shares[pid].started if pid in look.shares else 0.0


def _same(one: Share | None, other: Share) -> bool:
    return one is not None and one.started == other.started
