"""What tests of several folders share."""

from collections.abc import Iterator

import endpoint
import pytest


@pytest.fixture(scope="session")
def s3() -> Iterator[endpoint.Endpoint]:
    """An S3 endpoint; each test makes buckets of its own."""
    with endpoint.serve() as served:
        yield served
