"""What a person sees in Prefect's UI: forms that explain themselves, a run that starts there, its report."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from selenium.webdriver.support.select import Select

from tests.browser.driving import Browser, below, button
from tests.e2e.deployed import Deployed
from tests.e2e.prefect_server import ROOT
from tests.e2e.site import Site
from tests.settings import GIVEN

pytestmark = pytest.mark.timeout(300)

MIGRATE = "mltrack-migrate-to-s3"
NAMES = [each["name"] for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]
FILES, SIZE = 21, 100_000
FORM, FORM_BEFORE = "v2/deployments/deployment/{}/run", "deployments/deployment/{}/run"
"""The page on which a person lands by default, and that of the UI before it, which people can switch to."""
STORE = f"{below('store')}[@aria-label='Select a block']"


def shown(text: str) -> str:
    """A description as a form shows it."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", NAMES)
def test_a_form_preselects_the_store_and_explains_each_parameter(
    site: Site, browser: Browser, name: str
) -> None:
    deployment = site.server.ask(f"deployments/name/{name}/{name}")
    browser.open(FORM.format(deployment["id"]))
    assert browser.see(STORE).text == "mltrack"
    fields = deployment["parameter_openapi_schema"]["properties"].values()
    rest = browser.text()
    for field in sorted(fields, key=lambda each: each["position"]):
        _, found, rest = rest.partition(f"{field['title']} ")
        assert found, f"{field['title']} is missing, or not in its place"
        _, found, rest = rest.partition(shown(field["description"]))
        assert found, f"{field['title']} is not described"


@pytest.fixture(scope="module")
def migrate(site: Site) -> Iterator[Deployed]:
    """The deployment that stores a folder, with a worker."""
    with site.worker("team") as worker:
        yield site.deployment(MIGRATE, worker)


def runs(deployment: Deployed) -> list[dict[str, Any]]:
    chosen = {"deployments": {"id": {"any_": [deployment.id]}}}
    return list(deployment.server.ask("flow_runs/filter", chosen))


def test_the_ui_before_preselects_the_store_too(browser: Browser, migrate: Deployed) -> None:
    browser.open(FORM_BEFORE.format(migrate.id))
    drop_down = browser.see(f"{below('store')}[self::select][option[normalize-space()='mltrack']][1]")
    assert Select(drop_down).first_selected_option.text == "mltrack"


def test_a_form_refuses_what_is_out_of_bounds(browser: Browser, migrate: Deployed) -> None:
    browser.open(FORM.format(migrate.id))
    browser.fill("min_age_minutes", "-1")
    browser.click(button("Submit"))
    assert browser.refusals() == ["Value must be greater than or equal to 0."]
    assert runs(migrate) == []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: pictures show it."""
    with tempfile.TemporaryDirectory(prefix="churn-") as root:
        made = Path(root) / "mlruns"
        made.mkdir()
        for number in range(FILES):
            (made / f"fold-{number}.bin").write_bytes(os.urandom(SIZE))
        yield made


def test_a_run_that_is_submitted_shows_its_report(
    site: Site, browser: Browser, migrate: Deployed, folder: Path, tmp_path: Path
) -> None:
    pictures = ROOT / "docs" if "MLTRACK_UPDATE_PICTURES" in GIVEN else tmp_path
    browser.open(FORM.format(migrate.id))
    browser.fill("local_path", str(folder))
    for label, text in (("name", "churn"), ("run_id", "churn-2026-11")):
        browser.choose(label, "str")
        browser.fill(label, text)
    browser.see(STORE)
    browser.picture(pictures / "form.png")
    browser.click(button("Submit"))
    browser.click("//a[normalize-space()='View run']")
    browser.read(f"migrate {folder}")
    [run] = runs(migrate)
    done = migrate.wait(run["id"])
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    assert done["parameters"]["store"] == site.block()

    browser.read("Completed")
    browser.click("//*[@role='tab'][normalize-space()='Artifacts']")
    browser.click("//a[contains(normalize-space(), 'mltrack-migration-report')]")
    # The page of a key lists this report of all runs; here is one.
    browser.click("//a[contains(@href, '/artifacts/artifact/')]")
    browser.read(f"Migration of {folder}")
    browser.read(done["state"]["message"])
    browser.picture(pictures / "report.png")
    assert json.dumps(site.secret)[1:-1] not in browser.driver.page_source
