"""Reminders as they are kept on the document of what is owed: those that were told, and when the next is due."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from chassis.db import Document
from contracts.events import ReminderLevel, ReviewStep
from dept_adapter.reminders import Acknowledgement, Owing, Reminder, Schedule, level_of, next_on


def told_fields(owing: Owing, told: Sequence[Reminder], schedule: Schedule) -> Document:
    """``reminders``, and what ``next_fields`` says."""
    return {"reminders": [_document(each) for each in told], **next_fields(owing, told, schedule)}


def next_fields(owing: Owing, told: Sequence[Reminder], schedule: Schedule) -> Document:
    """``reminder_on``, ``reminder_level``: when the next reminder is due, and how far up they have got."""
    on, level = next_on(owing, told, schedule), level_of(owing, told)
    return {
        "reminder_on": on.isoformat() if on else None,
        "reminder_level": level.value if level else None,
    }


def reminders_of(document: Mapping[str, Any]) -> tuple[Reminder, ...]:
    """Those that were told."""
    return tuple(_reminder(each) for each in document.get("reminders", ()))


def _document(reminder: Reminder) -> Document:
    days = {name: getattr(reminder, name) for name in ("due_on", "on", "promised_on")}
    kept = {name: day and day.isoformat() for name, day in days.items()}
    return {**asdict(reminder), **kept, "step": reminder.step.value, "level": reminder.level.value}


def _reminder(document: Mapping[str, Any]) -> Reminder:
    promised, acknowledged = document["promised_on"], document["acknowledged"]
    return Reminder(
        step=ReviewStep(document["step"]),
        level=ReminderLevel(document["level"]),
        due_on=date.fromisoformat(document["due_on"]),
        on=date.fromisoformat(document["on"]),
        told_at=document["told_at"],
        promised_on=date.fromisoformat(promised) if promised else None,
        acknowledged=Acknowledgement(**acknowledged) if acknowledged else None,
    )
