"""Use the tasks in an async flow: in threads, so that the event loop goes on meanwhile."""

import asyncio

from prefect import flow

from mltrack_tasks import MLTrackStore, retrieve_data, store_data

STORE = MLTrackStore(path="mltrack-store")


@flow
async def answers() -> list[str]:
    values = [{"question": number, "answer": number**2} for number in range(3)]
    stored = [asyncio.to_thread(store_data, value, "answer", store=STORE) for value in values]
    refs = await asyncio.gather(*stored)
    return [str(await asyncio.to_thread(retrieve_data, ref, store=STORE)) for ref in refs]


if __name__ == "__main__":
    print(*asyncio.run(answers()), sep="\n")
