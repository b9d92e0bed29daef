"""What the judge of a chaos run holds of reminders: a run that lasts over midnight in China sees some."""

from datetime import UTC, datetime
from typing import Any

import pytest
from chaos.judge import misguided

from contracts.catalogue import load_catalogue

CATALOGUE = load_catalogue()
ITEM = "itm_" + "1" * 32
MIDNIGHT = datetime(2026, 11, 26, 16, tzinfo=UTC)
"""In China."""
OWN, OTHER = (CATALOGUE.by_slug(slug) for slug in ("hz-kjj", "hz-jyj"))


def mail(**changes: Any) -> dict[str, Any]:
    assert OWN is not None
    return {
        "message_id": f"<reminders~{OWN.code}~officer~0@xinfu>",
        "text": f"下列事项即将到期。\n\n- 事项 {ITEM}：应于12月1日前受理，即将到期。\n",
        "recipients": [OWN.contact_email],
        "first_received_at": MIDNIGHT.replace(minute=5).isoformat(),
        **changes,
    }


@pytest.mark.parametrize(
    ("mails", "wrong"),
    [
        ([mail()], None),
        ([mail(message_id="<cn.xinfu.repair.refused.v1~x@xinfu>", text="")], None),
        ([mail(recipients=[OTHER.contact_email if OTHER else None])], "not theirs"),
        ([mail(text=f"- 事项 {ITEM[:-1]}2：应于")], "not theirs"),
        ([mail(text="没有列出事项")], "not theirs"),
        ([mail(first_received_at=MIDNIGHT.replace(hour=15, minute=40).isoformat())], "on the day it came"),
        ([mail(), mail(message_id="<reminders~x~officer~1@xinfu>")], "2 times"),
    ],
)
def test_a_reminder_comes_to_whoever_has_the_item_on_a_later_day_and_once(
    mails: list[dict[str, Any]], wrong: str | None
) -> None:
    began = {ITEM: MIDNIGHT.replace(hour=15, minute=30)}
    found = list(misguided(mails, {ITEM: "hz-kjj"}, began, CATALOGUE))
    assert (found == []) == (wrong is None)
    assert all(wrong in each for each in found if wrong)
