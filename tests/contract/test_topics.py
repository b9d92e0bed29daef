"""The topic registry: every event has one home, with an owner that exists and a key that every event carries."""

import re

import pytest
from contract.architecture import REPOSITORY

from chassis.settings import ChassisSettings
from contracts import topics
from contracts.catalogue import load_catalogue
from contracts.events import EVENTS, Event
from contracts.topics import DAY_MS, REVIEWS, TOPICS, Topic, expand, review_topic

SLUGS = [department.slug for department in load_catalogue().departments]


def _name(topic: Topic) -> str:
    return topic.name


def test_every_event_is_in_exactly_one_topic() -> None:
    homes = [event for topic in TOPICS for event in topic.events]
    assert sorted(event.TYPE for event in homes) == sorted(EVENTS)


def test_every_declared_topic_is_registered() -> None:
    declared = {value.name for value in vars(topics).values() if isinstance(value, Topic)}
    assert declared == {topic.name for topic in TOPICS}
    assert len(declared) == len(TOPICS)


@pytest.mark.parametrize("cls", EVENTS.values(), ids=list(EVENTS))
def test_event_types_carry_a_version_and_a_required_key(cls: type[Event]) -> None:
    assert re.fullmatch(r"cn\.xinfu\.[a-z]+\.[a-z]+\.v[1-9][0-9]*", cls.TYPE)
    assert cls.model_fields[cls.KEY].is_required()
    assert cls.model_fields[cls.KEY].annotation is str


def test_names_keys_and_owners_are_those_of_the_architecture() -> None:
    # to move an event to another topic or key, order across the move has to be thought of: see docs/decisions first
    assert {topic.name: (topic.key, topic.owner) for topic in TOPICS} == {
        "xinfu.records": ("record_id", "intake"),
        "xinfu.applications": ("application_id", "intake"),
        "xinfu.reviews.{department}": ("item_id", "routing"),
        "xinfu.routing": ("application_id", "routing"),
        "xinfu.decisions": ("item_id", "dept-adapter"),
        "xinfu.propagation": ("record_id", "sync"),
        "xinfu.notifications": ("subject_id", "notify"),
        "xinfu.office-notifications": ("office_id", "notify"),
    }


@pytest.mark.parametrize("topic", TOPICS, ids=_name)
def test_topics_are_usable(topic: Topic) -> None:
    assert (REPOSITORY / "services" / topic.owner / "pyproject.toml").is_file()
    assert topic.partitions > 0
    assert topic.description
    assert all(topic.key == event.KEY for event in topic.events)
    assert topic.per_department == ("{department}" in topic.name)


@pytest.mark.parametrize("topic", TOPICS, ids=_name)
def test_an_inbox_remembers_longer_than_a_topic_keeps(topic: Topic) -> None:
    # a consumer that starts again from the oldest message must still know what took effect
    remembered_days = ChassisSettings.model_fields["inbox_retention_days"].default
    assert topic.retention_ms < remembered_days * DAY_MS


def test_a_topic_whose_events_have_two_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EVENTS["cn.xinfu.item.routed.v1"], "KEY", "item_id")
    with pytest.raises(ValueError, match=re.escape("xinfu.routing")):
        topics._topic("xinfu.routing", "routing", "")


def test_a_topic_without_events_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("xinfu.nothing")):
        topics._topic("xinfu.nothing", "routing", "")


def test_expand_gives_each_department_a_topic_of_its_own() -> None:
    real = expand(SLUGS)
    assert set(real) == {review_topic(slug) for slug in SLUGS} | {
        topic.name for topic in TOPICS if not topic.per_department
    }
    assert all(real[review_topic(slug)] is REVIEWS for slug in SLUGS)
    assert all("{" not in name for name in real)


def test_expand_takes_any_iterable_and_no_department() -> None:
    assert expand(iter(["a1", "b2"])).keys() - expand([]).keys() == {"xinfu.reviews.a1", "xinfu.reviews.b2"}
    assert len(expand([])) == len(TOPICS) - 1


def test_real_names_are_legal_for_kafka() -> None:
    for name in expand(SLUGS):
        # no "_": Kafka's metrics cannot tell it from "."
        assert re.fullmatch(r"[a-z0-9.-]{1,249}", name), name
