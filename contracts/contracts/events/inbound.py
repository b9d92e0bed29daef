"""What a department that lives on the bus says itself (xinfu.inbound.<department>)."""

from contracts.decisions import ReportedDecision
from contracts.events.base import Event
from contracts.records import DepartmentRef


class DecisionReported(ReportedDecision, Event):
    """A department that lives on the bus tells what it did about an item: the same words as a callback.

    It is taken at its word only for its own items; what follows is told by the events of xinfu.decisions.
    """

    TYPE = "cn.xinfu.decision.reported.v1"
    TOPIC = "xinfu.inbound.{department}"
    KEY = "item_id"

    department: DepartmentRef

    @property
    def topic(self) -> str:
        return self.TOPIC.format(department=self.department.slug)
