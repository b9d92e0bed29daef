"""Which kind a department is of."""

from contracts.catalogue import Department
from dept_adapter.kinds.api import ApiKind
from dept_adapter.kinds.events import EventsKind
from dept_adapter.kinds.files.kind import FilesKind
from dept_adapter.kinds.port import Kind, Parts


def kind_of(department: Department, parts: Parts) -> Kind | None:
    """The kind the catalogue names for a department; None: its officers work at the desk."""
    match department.mode:
        case "api":
            return ApiKind(department, parts)
        case "files":
            return FilesKind(department, parts)
        case "events":
            return EventsKind(department, parts)
    return None
