"""Without a flow: call the tasks as they are, or do without Prefect."""

from pathlib import Path

from mltrack_tasks import MLTrackStore, content, retrieve_file, store_file

STORE = MLTrackStore(path="mltrack-store")

if __name__ == "__main__":
    Path("notes.txt").write_text("the loss falls\n")
    ref = store_file("notes.txt", store=STORE)
    print(ref.name, ref.format, ref.size_bytes)
    print(retrieve_file(ref, "copies/notes.txt", store=STORE).read_text().strip())

    opened = STORE.open()  # the plain functions take an open store and need no Prefect
    same = content.store_file(opened, "notes.txt")
    print("created again:", same.created, content.retrieve_data(opened, same))
