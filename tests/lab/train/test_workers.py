"""Other processes and a Ray cluster mark as this process does, and a worker that dies costs
nothing.
"""

from __future__ import annotations

import os
import signal

import pytest
import torch

from namm_lab.train.workers import EvalJob, LocalWorker, ModelSource, ProcessWorkers
from namm_llm.config import make_cache_config
from namm_llm.errors import ModelError, UsageError
from tests.cache.test_eviction import random_namm
from tests.lab.train.echo import INTERVAL, Echo


@pytest.fixture
def source(tiny_folder):
    return ModelSource(
        str(tiny_folder), {"device": "cpu", "dtype": "float32"}, threads=torch.get_num_threads()
    )


@pytest.fixture
def jobs(source):
    documents = Echo(source.load().model)("train", ["echo"], 1, 4)
    configs = [
        make_cache_config("namm", namm=random_namm(seed), budget=0.3, interval=INTERVAL)
        for seed in range(3)
    ]
    return [EvalJob(document, tuple(configs)) for document in documents]


def expected(source, jobs):
    return LocalWorker(source.load().model).run(jobs, lambda done: None)


def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.slow
def test_processes_mark_as_this_one_does(source, jobs):
    done = []
    with ProcessWorkers(source, 2) as workers:
        assert same(workers.run(jobs, done.append), expected(source, jobs))
    assert done == [1, 2, 3, 4]


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("default")  # ray's own
def test_ray_marks_as_this_process_does_and_replaces_a_worker_that_dies(source, jobs, cluster):
    from namm_lab.train.ray_workers import RayWorkers

    wanted = expected(source, jobs)
    with RayWorkers(ModelSource(source.name, source.settings, threads=1), count=2) as workers:
        assert same(workers.run(jobs, lambda done: None), wanted)
        pids = workers.pids()

        def kill_one(done: int) -> None:
            if done == 1:
                os.kill(pids[0], signal.SIGKILL)

        assert same(workers.run(jobs * 3, kill_one), wanted * 3)
        assert workers.pids()[1:] == pids[1:]
        assert workers.pids()[0] != pids[0]


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("default")
def test_what_goes_wrong_in_a_worker_reads_as_here(cluster, jobs):
    from namm_lab.train.ray_workers import RayWorkers

    with (
        RayWorkers(
            ModelSource("nowhere/to-be-found", {"local_files_only": True}), count=1
        ) as workers,
        pytest.raises(ModelError, match="nowhere"),
    ):
        workers.run(jobs, lambda done: None)


def test_a_missing_library_is_named(monkeypatch):
    from namm_lab.train.ray_workers import RayWorkers

    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'namm-llm\[lab\]'"):
        RayWorkers(ModelSource("any"))
