"""The policies of the roles against what the tasks ask for: nothing is outside, nothing in them unused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from moto.s3 import models as moto_models

from mltrack_tasks import InvalidInputError, MLTrackStore, iam_policy, tasks
from mltrack_tasks.roles import ROLES, TASKS, role_policy
from tests import roleplay
from tests.floor3.limits import shrink
from tests.roleplay import BUCKET, COPIES, FRESH, OTHER, PLAYERS, PREFIX, Calls, Team
from tests.s3calls import Asked
from tests.servers import moto

PLACES = ((BUCKET, PREFIX), (BUCKET, OTHER), (BUCKET, COPIES), (FRESH, PREFIX), (FRESH, OTHER))


class Permission(NamedTuple):
    """One action on one resource under one condition, as a policy allows it."""

    action: str
    resource: str
    condition: tuple[str, str] | None

    def covers(self, asked: Asked) -> bool:
        """Decide as IAM does."""
        if self.action != asked.action or not _like(self.resource, asked.resource):
            return False
        if self.condition is None:
            return True
        operator, value = self.condition
        if operator == "Null":
            return asked.prefix is None
        return asked.prefix is not None and _like(value, asked.prefix)


def _like(pattern: str, text: str) -> bool:
    parts = re.split(r"(\$\{[*?$]\}|[*?])", pattern)
    spelled = {"*": ".*", "?": "."}
    found = (spelled.get(part) or re.escape(part[2] if part.startswith("${") else part) for part in parts)
    return re.fullmatch("".join(found), text, re.DOTALL) is not None


def permissions(policy: Mapping[str, Any]) -> Iterator[Permission]:
    """Take a policy apart; what this test has no idea of is an error."""
    assert policy["Version"] == "2012-10-17"
    for each in policy["Statement"]:
        assert each.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert each["Effect"] == "Allow"
        condition = None
        for operator, said in each.get("Condition", {}).items():
            [(key, value)] = said.items()
            assert (operator, key) in {("StringLike", "s3:prefix"), ("Null", "s3:prefix")}
            condition = (operator, value)
        for action in _listed(each["Action"]):
            for resource in _listed(each["Resource"]):
                yield Permission(action, resource, condition)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """All roles, after their work."""
    calls, folder = Calls(), tmp_path_factory.mktemp("roles")
    with pytest.MonkeyPatch.context() as patch, moto.serve(watch=calls.see) as server:
        patch.setattr(moto_models, "S3_UPLOAD_PART_MIN_SIZE", 256)
        patch.setenv("MLTRACK_CACHE_DIR", str(folder / "cache"))
        shrink(patch.setattr)
        played = Team(server, calls, folder)
        roleplay.play(played)
        yield played


def _tolerated(asked: Asked) -> bool:
    """What may be refused: to look for a store above ours, or whether another bucket keeps versions."""
    roots = {f"arn:aws:s3:::{bucket}/{prefix}/format.json" for bucket, prefix in PLACES}
    if asked.action == "s3:GetObject" and asked.resource.endswith("/format.json"):
        return asked.resource not in roots
    if asked.action.startswith("sqs:"):
        return True  # a queue of the user's choice, which no store knows of: docs/bucket.md
    if asked.action in ("s3:GetLifecycleConfiguration", "s3:GetIntelligentTieringConfiguration"):
        return True  # check_access looks for rules that break the store, and says so where it may not
    return asked == Asked("s3:GetBucketVersioning", f"arn:aws:s3:::{FRESH}-others")


def test_every_task_was_at_work_in_its_roles(team: Team) -> None:
    assert set(TASKS) == set(tasks.__all__)
    for task, roles in TASKS.items():
        players = team.done[task]
        if task == "check_access":
            assert players == set(ROLES)
        else:
            assert any(set(PLAYERS[each]) == set(roles) for each in players), task


@pytest.mark.parametrize("player", PLAYERS)
def test_nothing_is_asked_for_outside_the_policies(team: Team, player: str) -> None:
    allowed = [
        each
        for role in PLAYERS[player]
        for place in PLACES
        for each in permissions(role_policy(role, *place))
    ]
    seen = team.calls.by_player[player]
    assert seen
    beyond = {
        asked: task
        for asked, task in seen.items()
        if not _tolerated(asked) and not any(each.covers(asked) for each in allowed)
    }
    assert beyond == {}


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_allowed_that_nobody_asks_for(team: Team, role: str) -> None:
    """By those who have the role, and readers, whose work is a part of each role."""
    players = PLAYERS if role == "admin" else ("reader", role)
    seen = {asked for player in players for asked in team.calls.by_player[player]}
    needed = [
        (each.action, each.resource.rpartition(":")[2])
        for each in permissions(role_policy(role, BUCKET, PREFIX))
        if not any(each.covers(moved) for asked in seen for moved in _moved(asked))
    ]
    assert needed == []


def _moved(asked: Asked) -> Iterator[Asked]:
    """What was asked for in another place, as it would be asked for in ours."""
    ours = f"arn:aws:s3:::{BUCKET}/{PREFIX}/"
    yield asked
    for bucket, prefix in PLACES:
        root = f"arn:aws:s3:::{bucket}/{prefix}/"
        if asked.resource.startswith(root):
            yield asked._replace(resource=ours + asked.resource.removeprefix(root))
        if asked.resource == f"arn:aws:s3:::{bucket}":
            yield asked._replace(resource=f"arn:aws:s3:::{BUCKET}")


def test_nobody_sent_what_the_table_does_not_know(team: Team) -> None:
    assert team.calls.odd == []


def test_signs_of_iam_in_a_prefix_mean_themselves() -> None:
    policy = role_policy("reader", "b", "a*b/$?")
    read = next(each for each in permissions(policy) if each.action == "s3:GetObject")
    assert read.resource == "arn:aws:s3:::b/a${*}b/${$}${?}/*"
    assert read.covers(Asked("s3:GetObject", "arn:aws:s3:::b/a*b/$?/x"))
    assert not read.covers(Asked("s3:GetObject", "arn:aws:s3:::b/axxb/$?/x"))


def test_a_store_at_the_root_of_its_bucket() -> None:
    found = {each.resource for each in permissions(role_policy("reader", "b", ""))}
    assert found == {"arn:aws:s3:::b", "arn:aws:s3:::b/*"}


@pytest.mark.parametrize(
    ("key", "resource"),
    [
        ("arn:aws:kms:eu-west-1:111122223333:key/k", "arn:aws:kms:eu-west-1:111122223333:key/k"),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:kms:*:*:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("alias/ours", "arn:aws:kms:*:*:key/*"),
    ],
)
def test_the_key_of_the_store_is_in_the_policy(key: str, resource: str) -> None:
    for role in ROLES:
        statement = role_policy(role, "b", kms_key=key)["Statement"][-1]
        assert statement["Resource"] == resource
        assert ("kms:GenerateDataKey" in statement["Action"]) is (role != "reader")
        assert ("kms:ResourceAliases" in str(statement["Condition"])) is key.startswith("alias/")


def test_the_same_arguments_give_the_same_document_and_it_is_small() -> None:
    """IAM takes 6,144 characters without spaces of a managed policy."""
    bucket, prefix = "b" * 63, "a-team-with-a-name/of-some-length/mltrack"
    for role in ROLES:
        said = json.dumps(role_policy(role, bucket, prefix, region="cn-north-1"), separators=(",", ":"))
        assert said == json.dumps(
            role_policy(role, bucket, prefix, region="cn-north-1"), separators=(",", ":")
        )
        assert len(said) < 6_144
        assert "arn:aws:" not in said


@pytest.mark.parametrize("wrong", [("owner", "b", "p"), ("reader", "s3://b", "p"), ("reader", "b", "../p")])
def test_what_is_no_role_or_place_is_refused(wrong: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidInputError):
        role_policy(*wrong)
    with pytest.raises(InvalidInputError, match="no KMS key"):
        role_policy("reader", "b", kms_key="ours")


def test_a_store_has_policies_if_it_is_in_a_bucket(tmp_path: Path) -> None:
    """Nobody is asked, and no credentials are looked for."""
    assert iam_policy("writer", store="s3://b/p") == role_policy("writer", "b", "p")
    block = MLTrackStore(
        bucket="b", region_name="us-gov-west-1", server_side_encryption="aws:kms", kms_key_id="alias/k"
    )
    assert iam_policy("admin", store=block) == role_policy(
        "admin", "b", kms_key="alias/k", region="us-gov-west-1"
    )
    with pytest.raises(InvalidInputError, match="is a directory"):
        iam_policy("reader", store=str(tmp_path / "store"))
