"""A client that fails in every way with a secret in its hands; run by test_secrets, which reads the traces.

Arguments: the endpoint of a server that refuses everything, and access key, secret key and session token.
"""

from __future__ import annotations

import json
import pickle
import sys
import traceback

from prefect import flow
from prefect_aws import AwsCredentials

from mltrack_tasks import MLTrackError, MLTrackStore, check_access, store_data


@flow(log_prints=True)
def fail(store: MLTrackStore | str) -> None:
    report = check_access(store=store)
    print("report", json.dumps(report.rows()))
    for call in (store_data, store_data.fn):
        try:
            call({"a": 1}, store=store)
        except MLTrackError as error:
            print("caught", type(error).__name__, repr(error), error.details, pickle.dumps(error))
            traceback.print_exc()
    store_data.with_options(retry_delay_seconds=0)({"a": 2}, store=store)


def main(endpoint: str, key: str, secret: str, token: str) -> None:
    keys = AwsCredentials(
        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token, region_name="us-east-1"
    )
    block = MLTrackStore(bucket="bucket", endpoint_url=endpoint, credentials=keys)
    block.save("secretive", overwrite=True)
    print("block", block, repr(block), [block], block.model_dump_json())
    for store in ("secretive", block):
        state = fail(store, return_state=True)
        print("state", state, state.message)
    try:
        MLTrackStore(bucket="bucket", path="/also", credentials=keys)
    except ValueError:
        traceback.print_exc()


if __name__ == "__main__":
    main(*sys.argv[1:])
