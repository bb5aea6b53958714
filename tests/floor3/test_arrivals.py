"""New data starts work: real messages of moto's S3 through moto's SQS, each blob acted upon once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mltrack_tasks import provenance
from mltrack_tasks.arrivals import process
from mltrack_tasks.arrivals.batches import Batch
from mltrack_tasks.arrivals.holding import Held
from mltrack_tasks.arrivals.keys import claim_key
from mltrack_tasks.arrivals.process import process_new_data
from mltrack_tasks.arrivals.report import ArrivalReport, Tally
from mltrack_tasks.content import forget_data, named_in, store_data
from mltrack_tasks.errors import AccessError, InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.refs import parse_ref
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import open_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.queues import Message, Queue
from mltrack_tasks.trust.verify import verify_store
from tests.floor0.test_notices import TEST_EVENT, bridged, of_records, record
from tests.floor3.buckets import Bucket
from tests.floor3.queues import Queues
from tests.servers import S3Server
from tests.settings import settings_of

SUBSCRIPTION = "train on new data"


class Place:
    """A store whose notifications go to a queue, and what was acted upon so far."""

    def __init__(self, server: S3Server) -> None:
        self.bucket = Bucket(server)
        self.store: Store = self.bucket.store
        self.queues = Queues(self.bucket)
        self.batches: list[Batch] = []
        self.fails = 0

    def act(self, batch: Batch) -> str:
        """Note the batch, or fail as often as was asked for."""
        if self.fails:
            self.fails -= 1
            raise TransientError("Prefect does not answer. Try again.")
        self.batches.append(batch)
        return f"run {len(self.batches)}"

    def process(self, **options: Any) -> ArrivalReport:
        asked = {"subscription": SUBSCRIPTION, "wait_s": 0, **options}
        return process_new_data(self.store, asked.pop("queue", self.queues.name), self.act, **asked)

    @property
    def acted(self) -> list[str]:
        return [ref for batch in self.batches for ref in batch.refs]


@pytest.fixture
def place(s3_server: S3Server) -> Place:
    """Its bucket is provisioned as a user's is."""
    made = Place(s3_server)
    made.bucket.apply(recommended=False, notifications={"queue_arn": made.queues.arn})
    return made


@pytest.fixture
def bare(s3_server: S3Server) -> Place:
    """No notifications: the test sends the messages."""
    return Place(s3_server)


def test_what_is_stored_is_acted_upon_once(place: Place) -> None:
    ref = store_data(place.store, {"a": 1}, "data ü+%20")
    run = store_run(place.store, "run 1", {"b": [1], "c": ref}, outputs={"d": b"e"}, storage_mode="flat")
    report = place.process()
    assert sorted(place.acted) == sorted({str(ref), *map(str, run.all_refs)})
    assert len(place.batches) == 1
    assert (report.records, report.new, report.known, report.batches) == (2, 3, 0, 1)
    assert report.begun == ("run 1",)
    assert report.messages == report.records + report.tests + report.foreign
    assert place.queues.count() == (0, 0)
    # The same data under another name, and in another run: told again, and known.
    store_data(place.store, {"a": 1}, "another")
    store_run(place.store, "run 2", {"b": [1]}, storage_mode="flat")
    again = place.process(queue=place.queues.arn)
    assert (again.records, again.new, again.known) == (2, 0, 2)
    assert len(place.batches) == 1
    # Another subscription has not seen any of it.
    place.queues.send(of_records(told(place, "manifests/run%25201.json")))
    assert place.process(subscription="other", queue=place.queues.url).new == 3
    assert verify_store(place.store, level="structure").ok


def told(place: Place, key: str) -> dict[str, Any]:
    """A record of S3 about a key of the store, encoded as it is sent."""
    return record(f"mltrack/{key}", place.bucket.name)


def named(place: Place, *values: Any) -> list[str]:
    """Store values by name -> the keys of their records."""
    for value in values:
        store_data(place.store, value, "n")
    return sorted(stat.key for stat in place.store.list("names/"))


def test_a_message_delivered_twice(bare: Place) -> None:
    [key] = named(bare, 1)
    bare.queues.send(of_records(told(bare, key)), of_records(told(bare, key), told(bare, key)))
    report = bare.process()
    assert (report.messages, report.records, report.new) == (2, 1, 1)
    bare.queues.send(of_records(told(bare, key)))
    assert bare.process().known == 1
    assert len(bare.acted) == 1


def test_foreign_messages_start_nothing(bare: Place) -> None:
    [key] = named(bare, 1)
    bare.queues.send(
        of_records(record("logs/names/a.json", bare.bucket.name), record(f"mltrack/{key}", "other-bucket")),
        of_records(
            told(bare, "runs/by_project/p/r"), {**told(bare, key), "eventName": "ObjectRemoved:Delete"}
        ),
        json.dumps(TEST_EVENT),
    )
    report = bare.process()
    assert (report.messages, report.foreign, report.tests) == (3, 4, 1)
    assert bare.acted == []
    assert bare.queues.count() == (0, 0)
    assert bare.queues.dead() == []


def test_what_cannot_be_understood_goes_to_the_dead_letters(bare: Place) -> None:
    good, damaged = named(bare, 1, 2)
    bare.bucket.client.put_object(Bucket=bare.bucket.name, Key=f"mltrack/{damaged}", Body=b"{}")
    bare.queues.send("{", of_records(told(bare, good), told(bare, damaged)))
    events: list[str] = []
    report = bare.process(observe=lambda event: events.append(event.name))
    assert (report.buried, report.new) == (2, 1)
    assert len(bare.acted) == 1
    dead = dict(bare.queues.dead())
    assert "not valid JSON" in dead.pop("{")
    [reason] = dead.values()
    assert damaged in reason
    assert report.reasons[1] == reason
    assert events == ["mltrack.message.buried"] * 2
    assert bare.queues.count() == (0, 0)


def test_a_message_of_a_thousand_keys(bare: Place) -> None:
    """In batches of 8; an event of EventBridge comes along, and most of the records have gone."""
    run = store_run(bare.store, "r", {"whole": list(range(5))}, storage_mode="flat")
    keys = named(bare, *range(20), "gone")
    gone = {stat.key for stat in bare.store.list("names/")}
    forget_data(bare.store, "n")
    keys += named(bare, *range(20))
    gone -= {stat.key for stat in bare.store.list("names/")}
    news = [*keys[-20:], *gone, "manifests/r.json"]
    news += [f"names/n/{n:064x}.json" for n in range(28)]
    thousand = [*news, *(f"runs/by_date/2024-01-15/r{n}" for n in range(950))]
    assert len(thousand) == 1000
    small = [{"eventName": "ObjectCreated:Put", "s3": told(bare, key)["s3"]} for key in thousand]
    bare.queues.send(of_records(*small), json.dumps(bridge(bare, "manifests/r.json")))
    report = bare.process(batch_size=8)
    assert (report.messages, report.records, report.gone, report.foreign) == (2, 21, 29, 950)
    assert [len(batch.refs) for batch in bare.batches] == [8, 8, 5]
    assert report.new == 21
    assert str(run.data["whole"]) in bare.acted


def bridge(place: Place, key: str) -> dict[str, Any]:
    event = bridged(f"mltrack/{key}")
    event["detail"]["bucket"]["name"] = place.bucket.name
    return event


def test_what_the_deployment_itself_stores_starts_nothing(bare: Place) -> None:
    """Or it would be started by its own results, without end."""
    with provenance.within(deployment_id="d1"):
        store_data(bare.store, "result", "n")
        store_run(bare.store, "r", {"result": [1]}, storage_mode="flat")
    [key] = [stat.key for stat in bare.store.list("names/")]
    body = of_records(told(bare, key), told(bare, "manifests/r.json"))
    bare.queues.send(body)
    report = bare.process(own_deployment="d1")
    assert (report.own, report.records, report.new) == (2, 0, 0)
    bare.queues.send(body)
    assert bare.process(own_deployment="d2").new == 2


def test_work_that_fails_comes_again(bare: Place) -> None:
    [key] = named(bare, 1)
    bare.queues.send(of_records(told(bare, key)))
    bare.fails = 1
    with pytest.raises(TransientError):
        bare.process()
    assert bare.queues.count() == (1, 0)  # shown again at once, not after the visibility timeout
    assert bare.process().new == 1
    assert bare.queues.count() == (0, 0)


def forged(store: Store, ref: str) -> None:
    digest, format = parse_ref(ref)
    store.create(claim_key(SUBSCRIPTION, digest, str(format)), b"{}")


def of_no_batch(store: Store, ref: str) -> None:
    digest, format = parse_ref(ref)
    claim = Record({"batch": "0" * 64}, provenance.current()).to_bytes()
    store.create(claim_key(SUBSCRIPTION, digest, str(format)), claim)


@pytest.mark.parametrize("spoil", [forged, of_no_batch])
def test_a_bad_claim_stops_nothing_but_its_own_message(
    bare: Place, spoil: Callable[[Store, str], None]
) -> None:
    keys = named(bare, *range(4))
    bad = named_in(bare.store, keys[1], read_record(bare.store, keys[1])).ref
    spoil(bare.store, str(bad))
    bare.queues.send(*(of_records(told(bare, key)) for key in keys))
    report = bare.process()
    assert (report.new, report.known, report.buried) == (3, 0, 1)
    assert str(bad) not in bare.acted
    [(body, reason)] = bare.queues.dead()
    assert keys[1].rpartition("/")[2].split(".")[0] in body
    assert str(bad) in reason
    assert bare.queues.count() == (0, 0)


def test_a_record_in_an_archive_stops_nothing_but_its_own_message(bare: Place) -> None:
    keys = named(bare, *range(3))
    bare.bucket.client.copy_object(
        Bucket=bare.bucket.name,
        Key=f"mltrack/{keys[0]}",
        CopySource={"Bucket": bare.bucket.name, "Key": f"mltrack/{keys[0]}"},
        StorageClass="GLACIER",
    )
    bare.queues.send(*(of_records(told(bare, key)) for key in keys))
    report = bare.process()
    assert (report.new, report.buried) == (2, 1)
    [(_, reason)] = bare.queues.dead()
    assert "storage class" in reason


def test_done_messages_go_though_the_dead_letters_take_none(bare: Place) -> None:
    keys = named(bare, *range(2))
    bare.queues.send(*(of_records(told(bare, key)) for key in keys))
    attributes = {"MaximumMessageSize": "1024"}
    bare.queues.sqs.set_queue_attributes(QueueUrl=bare.queues.dead_url, Attributes=attributes)
    bare.queues.send("{" * 2_000)
    with pytest.raises(MLTrackError):
        bare.process()
    assert len(bare.acted) == 2
    assert bare.queues.bodies() == ["{" * 2_000]


def test_a_bucket_by_an_alias_would_make_everything_foreign(s3_server: S3Server) -> None:
    store = open_s3(settings_of(s3_server, bucket="point-abcdef-s3alias", prefix="mltrack"))
    with pytest.raises(InvalidInputError, match="by its bucket's name"):
        process_new_data(store, "queue", lambda batch: None)


def test_work_that_always_fails_ends_in_the_dead_letters(bare: Place) -> None:
    [key] = named(bare, 1)
    bare.queues.send(of_records(told(bare, key)))
    bare.fails = 3  # as often as the queue's redrive policy lets it come
    for _ in range(3):
        with pytest.raises(TransientError):
            bare.process()
    assert bare.process().messages == 0
    assert bare.queues.count(bare.queues.dead_url) == (1, 0)


class Killed(BaseException):
    """The end of a process, as far as a test of one process can have it."""


@pytest.mark.parametrize("step", ["begin_batch", "claim", "act", "done", "delete"])
def test_killed_anywhere_and_called_again(bare: Place, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is begun once by its id, whatever had been done when the process ended."""
    keys = named(bare, *range(3))
    bare.queues.send(*(of_records(told(bare, key)) for key in keys))
    ids: list[str] = []

    def act(batch: Batch) -> str:
        ids.append(batch.id)
        if step == "act" and len(ids) == 1:
            raise Killed
        return "run"

    with monkeypatch.context() as patched:
        create = type(bare.store).create

        def dies(store: Any, key: str, body: bytes) -> bool:
            made = create(store, key, body)
            wanted = {"begin_batch": "/batches/", "claim": "/data/", "done": ".done"}.get(step)
            if wanted and wanted in key and key.startswith("arrivals/"):
                raise Killed
            return made

        patched.setattr(type(bare.store), "create", dies)
        patched.setattr(Held, "_try_to_hold", lambda *_: None)  # who is dead shows nothing again
        if step == "delete":
            patched.setattr(Queue, "delete", killed)
        with pytest.raises(Killed):
            process_new_data(bare.store, bare.queues.name, act, subscription="s", visibility_s=1, wait_s=0)
    bare.queues.send(*(of_records(told(bare, key)) for key in keys))  # they come again
    process_new_data(bare.store, bare.queues.name, act, subscription="s", wait_s=0)
    assert len(set(ids)) == 1
    assert len(ids) == (2 if step == "act" else 1)
    assert len(list(bare.store.list("arrivals/s/data/"))) == 3


def killed(*_: Any) -> None:
    raise Killed


def test_two_at_the_same_time_act_once(bare: Place) -> None:
    """Both see the data as new; one claims it, and the other finishes that one's batch, or finds it done."""
    keys = named(bare, *range(6))
    barrier = threading.Barrier(2)
    acted: list[Batch] = []
    real = process.batches_of

    def together(*given: Any) -> Any:
        found = real(*given)
        barrier.wait(10)
        return found

    def consume(own: list[str]) -> None:
        reader = process._Reader(
            bare.store, bare.bucket.name, "mltrack/", "s", 10, lambda batch: acted.append(batch), Tally()
        )
        reader.read([Message("1", of_records(*(told(bare, key) for key in own)), "h", 1)])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "batches_of", together)
        threads = [threading.Thread(target=consume, args=(own,)) for own in (keys[:4], keys[2:])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    of = {batch.id: batch.refs for batch in acted}
    refs = [ref for batch in of.values() for ref in batch]
    assert len(refs) == len(set(refs)) == 6
    assert all(batch.refs == of[batch.id] for batch in acted)  # begun again only as what it was


def test_messages_stay_hidden_while_the_work_goes_on() -> None:
    """Renewed again and again; a renewal that fails is not the end, and failed work shows them at once."""
    calls: list[int] = []
    renewed = threading.Event()

    class Faulty:
        def hold(self, messages: Any, seconds: int) -> None:
            calls.append(seconds)
            if len(calls) == 1:
                raise TransientError("once")
            renewed.set()

    def work(*, fails: bool) -> Iterator[None]:
        with Held(Faulty(), [Message("1", "", "h", 1)], 0.03):  # type: ignore[arg-type]
            assert renewed.wait(10)
            if fails:
                raise ValueError("the work")

    with pytest.raises(ValueError, match="the work"):
        next(work(fails=True), None)
    assert calls[:2] == [0.03, 0.03]
    assert calls[-1] == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"queue": "no-such-queue"}, AccessError, "no-such-queue"),
        ({"queue": "https://example.org/"}, InvalidInputError, "name, ARN or URL"),
        ({"queue": "a.fifo"}, InvalidInputError, "FIFO"),
        ({"subscription": ".."}, InvalidInputError, "subscription"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
        ({"visibility_s": True}, InvalidInputError, "visibility_s"),
        ({"wait_s": 21}, InvalidInputError, "wait_s"),
        ({"max_messages": 0}, InvalidInputError, "max_messages"),
    ],
    ids=lambda value: next(iter(value)) + str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_bad_input(bare: Place, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bare.process(**options)


def test_a_queue_without_dead_letters_and_a_store_without_a_bucket(bare: Place, store: Store) -> None:
    lone = Queues(bare.bucket, dead_letters=False)
    with pytest.raises(InvalidInputError, match="RedrivePolicy"):
        bare.process(queue=lone.name)
    with pytest.raises(InvalidInputError, match="not in a bucket"):
        process_new_data(store, "q", bare.act, subscription="s")
