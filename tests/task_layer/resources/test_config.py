from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig, machine_memory
from tasks.resources.process import torch_device, use_threads


def test_sizes_are_read_as_they_are_written():
    assert ResourcesConfig(memory="8GiB").memory_bytes == 8 * 2**30
    assert ResourcesConfig(memory="1.5 GiB").memory_bytes == 3 * 2**29
    assert ResourcesConfig(memory="768MiB").memory_bytes == 768 * 2**20
    assert 0 < ResourcesConfig().memory_bytes < machine_memory()


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"memory": "8 GB"}, "memory: wanted .* got '8 GB'"),
        ({"memory": "100MiB"}, "memory: wanted at least 512MiB"),
        ({"runner": "dask"}, "address: wanted the scheduler's"),
        ({"address": "tcp://127.0.0.1:8786"}, "address: wanted the scheduler's"),
        ({"runner": "dask", "address": "127.0.0.1"}, "address: wanted tcp://host:port"),
    ],
)
def test_a_wrong_key_is_named(keys, named):
    with pytest.raises(ValueError, match=named):
        ResourcesConfig(**keys)


def test_a_device_is_found_or_missed_in_one_line(monkeypatch):
    assert torch_device(ResourcesConfig(device="cpu")) == "cpu"
    for there in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert torch_device(ResourcesConfig()) == ("cuda" if there else "cpu")
        assert torch_device(ResourcesConfig(device="cpu")) == "cpu"
    assert torch_device(ResourcesConfig(device="cuda")) == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"resources\.device: torch sees no CUDA device"):
        _ = torch_device(ResourcesConfig(device="cuda"))


def test_threads_are_set_everywhere_and_blas_gets_one():
    before = torch.get_num_threads(), pa.cpu_count()
    with threadpool_limits():
        use_threads(3)
        assert (torch.get_num_threads(), pa.cpu_count()) == (3, 3)
        assert {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"} == {1}
    torch.set_num_threads(before[0])
    pa.set_cpu_count(before[1])
