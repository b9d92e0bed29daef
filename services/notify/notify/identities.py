"""Who a caller is among the pseudonyms: intake alone can tell, and is asked once an hour for each subject."""

import time
from collections import OrderedDict

from chassis.cases import CaseDirectory
from contracts.records import SubjectType


class Identities:
    """Subject ids by subject type and code; at most ``size`` are kept in memory, each for ``seconds``."""

    def __init__(self, directory: CaseDirectory, *, seconds: float, size: int) -> None:
        self._directory = directory
        self._seconds = seconds
        self._size = size
        self._known: OrderedDict[tuple[SubjectType, str], tuple[float, str]] = OrderedDict()

    async def subject_id(self, subject_type: SubjectType, code: str) -> str:
        """The pseudonym of a subject. Raises aiohttp.ClientError or TimeoutError when intake does not answer."""
        known = self._known.get((subject_type, code))
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        subject_id = await self._directory.identify(subject_type, code)
        self._known[subject_type, code] = (time.monotonic() + self._seconds, subject_id)
        self._known.move_to_end((subject_type, code))
        # all live equally long: the one put in first is the one that ends first
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return subject_id
