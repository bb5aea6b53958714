"""What messages about objects say, and which keys below ``arrivals/`` are ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.arrivals.keys import batch_key, claim_key, done_key, is_arrival_key
from mltrack_tasks.arrivals.notices import Notice, Said, news_in, read_message
from mltrack_tasks.errors import IntegrityError, InvalidInputError

DIGEST = "ab" * 32
TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2024-01-15T00:00:00Z", "Bucket": "b"}


def record(key: str, bucket: str = "b", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """What S3 says of one object; ``key`` as it is encoded on the way."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}},
    }


def of_records(*records: Any) -> str:
    return json.dumps({"Records": list(records)})


def bridged(key: str, kind: str = "Object Created", source: str = "aws.s3") -> dict[str, Any]:
    detail = {
        "version": "0",
        "bucket": {"name": "b"},
        "object": {"key": key, "size": 1},
        "reason": "PutObject",
    }
    return {"version": "0", "detail-type": kind, "source": source, "detail": detail}


def enveloped(body: str, times: int = 1) -> str:
    for _ in range(times):
        body = json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": body})
    return body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (of_records(record("m/a")), Said((Notice("b", "m/a"),))),
        (of_records(record("m/a", name="s3:ObjectCreated:Copy")), Said((Notice("b", "m/a"),))),
        (of_records(record("m/a"), record("m/b", "c")), Said((Notice("b", "m/a"), Notice("c", "m/b")))),
        (of_records(record("m/a", name="ObjectRemoved:Delete")), Said(others=1)),
        (of_records(), Said()),
        (of_records(record("m/a+b%2Bc%25XX%C3%BC")), Said((Notice("b", "m/a b+c%XXü"),))),
        (json.dumps(TEST_EVENT), Said(test=True)),
        (json.dumps(bridged("m/a+b%20ü")), Said((Notice("b", "m/a+b%20ü", "m/a b ü"),))),
        (json.dumps(bridged("m/a", "Object Deleted")), Said(others=1)),
        (enveloped(of_records(record("m/a")), 2), Said((Notice("b", "m/a"),))),
        (enveloped(json.dumps(TEST_EVENT)), Said(test=True)),
    ],
    ids=[
        *("put", "copy", "two buckets", "removal", "no records", "encoded"),
        *("trial", "bridge", "bridge removal", "topic", "trial by topic"),
    ],
)
def test_all_forms_in_which_events_come(body: str, said: Said) -> None:
    assert read_message(body) == said


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "of no form"),
        ('{"Records": 1}', "no list"),
        ('{"Records": [1]}', "no JSON object"),
        ('{"Records": [{}]}', "no eventName"),
        (of_records({**record("k"), "s3": None}), "no s3"),
        (of_records(record("")), "no key"),
        (of_records(record("%FF")), "not encoded"),
        (of_records(record("a%2")), "not encoded"),
        (of_records({**record("k"), "s3": {"object": {"key": "k"}, "bucket": {"name": 1}}}), "no name"),
        ('{"Records": [], "Records": []}', "not valid JSON"),
        (json.dumps(bridged("k", source="somebody")), "not of aws.s3"),
        (json.dumps({**bridged("k"), "detail": []}), "no detail"),
        (enveloped("{}", 4), "of no form"),
        (json.dumps({"Type": "Notification", "Message": {}}), "where a message was sent on"),
        ("[" * 5_000, "not valid JSON"),
    ],
    ids=lambda value: value[:24],
)
def test_what_cannot_be_understood_says_why(body: str, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        read_message(body)


@given(st.text(max_size=40), st.integers(0, 200), st.integers(0, 20))
def test_any_message_is_read_or_refused(put_in: str, at: int, taken: int) -> None:
    body = of_records(record("m/a%20b"), record("m/b"))
    try:
        read_message(body[:at] + put_in + body[at + taken :])
    except IntegrityError:
        return


def test_which_keys_are_news_of_a_store() -> None:
    news = (f"names/a%20b/{DIGEST}.json", "manifests/r~00000002.json")
    for key in news:
        assert news_in(Notice("b", f"m/{key}"), "b", "m/") == news_in(Notice("b", key), "b", "") == (key,)
        for foreign in (Notice("c", f"m/{key}"), Notice("b", key), Notice("b", f"mm/{key}")):
            assert news_in(foreign, "b", "m/") == ()
    others = ("", "format.json", f"data/ab/{DIGEST}/data.json", "names/a b/x.json", "runs/by_date/x/y")
    assert not any(news_in(Notice("b", f"m/{key}"), "b", "m/") for key in others)
    both = Notice("b", "m/manifests/a%2520b.json", "m/manifests/a%20b.json")
    assert news_in(both, "b", "m/") == ("manifests/a%2520b.json", "manifests/a%20b.json")


def test_the_keys_of_arrivals() -> None:
    made = (claim_key("a/b", DIGEST, "npy"), batch_key("a/b", DIGEST), done_key("a/b", DIGEST))
    assert made[0] == f"arrivals/a%2Fb/data/ab/{DIGEST}.npy.json"
    assert all(map(is_arrival_key, made))
    wrong = (
        *("arrivals/", "arrivals/a/data/x.json", f"arrivals/a b/batches/{DIGEST}.json", "names/a/batches/x"),
        *(f"arrivals/a/data/cd/{DIGEST}.npy.json", f"arrivals/a/data/ab/{DIGEST}.exe.json"),
        *(f"arrivals/a/batches/{DIGEST}", f"arrivals/a/other/{DIGEST}.json"),
    )
    assert not any(map(is_arrival_key, wrong))
    with pytest.raises(InvalidInputError, match="subscription"):
        claim_key("", DIGEST, "npy")
