"""Law as data: the departments, rules and targets of ``catalogue/*.yaml``, checked when loaded. Pure; no clock: days are arguments."""

from contracts.catalogue.loading import CatalogueError, load_catalogue
from contracts.catalogue.questions import Catalogue, add_months, normalise_name
from contracts.catalogue.rows import (
    Category,
    Condition,
    Department,
    DepartmentMode,
    Evidence,
    Expert,
    FileForm,
    InPersonRule,
    LetterOffice,
    LetterTemplate,
    Overlay,
    Protocol,
    Rule,
    Source,
    Target,
    Tier,
)

__all__ = [
    "Catalogue",
    "CatalogueError",
    "Category",
    "Condition",
    "Department",
    "DepartmentMode",
    "Evidence",
    "Expert",
    "FileForm",
    "InPersonRule",
    "LetterOffice",
    "LetterTemplate",
    "Overlay",
    "Protocol",
    "Rule",
    "Source",
    "Target",
    "Tier",
    "add_months",
    "load_catalogue",
    "normalise_name",
]
