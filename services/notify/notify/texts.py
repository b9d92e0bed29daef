"""Chinese texts from the Jinja2 templates in ``templates/``: the first line is the title, what follows the text.

A text is made of its event alone, so that it does not depend on what else has arrived.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from jinja2 import PackageLoader, StrictUndefined, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.clock import china_date
from contracts.events import Channel, Event, IssuedLetter, OfficeNotified
from notify.domain import CHANNELS, TellableEvent
from notify.offices import OfficeMail


class Text(NamedTuple):
    """A plain-text message; the title is one line."""

    title: str
    text: str


def chinese_date(day: date | datetime) -> str:
    """``2026年11月23日``; a moment is shown as the day it is in China."""
    if isinstance(day, datetime):
        day = china_date(day)
    return f"{day.year}年{day.month}月{day.day}日"


def template_name(event_class: type[Event]) -> str:
    """``cn.xinfu.repair.refused.v1`` is told by ``repair.refused.v1.txt``."""
    return f"{event_class.TYPE.removeprefix('cn.xinfu.')}.txt"


class Texts:
    """Renders the message for an event.

    ``target_names``: target id -> name (catalogue). Reads every template at once: a missing one stops the start-up.
    """

    def __init__(self, target_names: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            loader=PackageLoader("notify"),
            undefined=StrictUndefined,
            autoescape=select_autoescape(),  # for .html; plain text is not escaped
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["day"] = chinese_date
        environment.filters["target_name"] = lambda target_id: target_names.get(target_id, target_id)
        self._to_vendor = environment.get_template("vendorletter.issued.v1.vendor.txt")
        told: tuple[type[Event], ...] = (*CHANNELS, OfficeNotified)
        self._templates = {cls: environment.get_template(template_name(cls)) for cls in told}

    def render(
        self, event: TellableEvent, channel: Channel = Channel.IN_APP, *, to_supervisor: bool = False
    ) -> Text:
        """Title and text for an event. The e-mail of a vendor letter is to the vendor or its supervisor, not to the applicant."""
        if isinstance(event, IssuedLetter) and channel is Channel.EMAIL:
            return _text(self._to_vendor.render(event=event, to_supervisor=to_supervisor))
        return _text(self._templates[type(event)].render(event=event))

    def office(self, mail: OfficeMail, lines: Sequence[str]) -> Text:
        """Title and text of a mail to an office."""
        return _text(self._templates[OfficeNotified].render(mail=mail, lines=lines))


def _text(rendered: str) -> Text:
    title, _, text = rendered.partition("\n")
    return Text(" ".join(title.split()), text.strip())
