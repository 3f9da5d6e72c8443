"""Every test that asks for `device` runs on a quick one, and on one whose every call is a worker's."""

import pytest

from headway.edge.memory_devices import MemoryDevice
from tests.edge.serving.served import SMALLEST, Waiting, make


@pytest.fixture(params=[MemoryDevice, Waiting])
def device(request):
    return make(request.param)


@pytest.fixture(params=[SMALLEST, "8MiB"])
def memory(request):
    return request.param
