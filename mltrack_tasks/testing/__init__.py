"""The store's contract as tests: subclass ``StoreContract`` and let pytest run it against your own store.

    from mltrack_tasks.testing import DEFAULT_CAPABILITIES, RawS3, StoreContract

    class TestMyBucket(StoreContract):
        expects = DEFAULT_CAPABILITIES

        @pytest.fixture
        def store(self): ...

        @pytest.fixture
        def raw(self): ...

Every check that matters looks behind the store's back, through ``raw``. This is the only part of the package
that needs pytest.
"""

from __future__ import annotations

from mltrack_tasks.testing.contract import DEFAULT_CAPABILITIES, StoreContract
from mltrack_tasks.testing.raw import Raw, RawFolder, RawObjects, RawS3

__all__ = ["DEFAULT_CAPABILITIES", "Raw", "RawFolder", "RawObjects", "RawS3", "StoreContract"]
