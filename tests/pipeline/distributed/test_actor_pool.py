"""What the actors of a run do as nodes come and go, with a cluster that is a dictionary and actors that are futures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pipeline.config import Config, parse_config
from pipeline.dataset.opening import OutputMismatch
from pipeline.distributed import actor_pool
from pipeline.distributed.actor import Readiness
from pipeline.distributed.actor_pool import RECONCILE_SECONDS, WAIT_WARNING_SECONDS, ActorPool
from pipeline.distributed.scheduler import Scheduler
from pipeline.items import ShardSpec
from pipeline.shard.tokenize import CodecJob

HEAD, GPU_NODE = {"CPU": 0.0}, {"CPU": 16.0, "GPU": 1.0}


class FakeActor:
    """Its methods are called as those of Ray's; `loads` says on which node it is ready."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.readiness: Future[Readiness] = Future()

    @property
    def _actor_id(self) -> bytes:
        return id(self).to_bytes(8, "big")

    @property
    def ready(self) -> Any:
        class Method:
            remote = staticmethod(lambda: Method)
            future = staticmethod(lambda: self.readiness)

        return Method

    def loads(self, node: str, **machine: str) -> None:
        self.readiness.set_result(Readiness(node, [machine]))


class FakeCluster:
    """Nodes, actors and time, all at the test's will."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, float]] = {"head": HEAD}
        self.started: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.seconds = 0.0
        self.notes: list[str] = []

    def run(self, shards: int = 1000, machine: str | None = None, **settings: Any) -> ActorPool:
        """With `machine`, only actors on such a one may encode."""
        about = {"split": "train", "format": "webdataset", "size": 1, "version": "1"}
        specs = [ShardSpec(uri=f"{number}.tar", **about) for number in range(shards)]  # type: ignore[arg-type]
        config = config_of(**settings)

        def objection(machines: Sequence[Mapping[str, str]]) -> str | None:
            (found,) = machines
            wrong = machine is not None and found != {"processor": machine}
            return f"made on {machine}, not on {found['processor']}" if wrong else None

        tokenizer: Any = FakeActor
        record: Any = None
        return ActorPool(
            [CodecJob(config, record)], "run", tokenizer, Scheduler(specs, 3), self.notes.append, objection
        )

    def advance(self, run: ActorPool, seconds: float = RECONCILE_SECONDS) -> None:
        """Let time pass, look at the cluster, hear what actors say."""
        self.seconds += seconds
        run.reconcile()
        run.handle_replies(0.001)

    @property
    def alive(self) -> list[FakeActor]:
        return [actor for actor in self.started if actor not in self.killed]

    def remote(self, _: type) -> FakeCluster:
        self.asked: dict[str, Any] = {}
        return self

    def options(self, **options: Any) -> Any:
        class Shell:
            @staticmethod
            def remote(jobs: Sequence[CodecJob], *_: Any) -> FakeActor:
                self.started.append(FakeActor({**options, "device": jobs[0].config.model.device}))
                return self.started[-1]

        return Shell


def config_of(device: str = "auto", **cluster: Any) -> Config:
    inputs = {"splits": {"train": ["a.tar"]}}
    cluster = {"address": "head:6379"} | cluster
    return parse_config({"input": inputs, "output": {"uri": "o"}, "model": {"device": device}, "cluster": cluster})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A head without CPUs."""
    fake = FakeCluster()
    monkeypatch.setattr(actor_pool, "live_nodes", lambda: dict(fake.nodes))
    monkeypatch.setattr(actor_pool, "time", SimpleNamespace(monotonic=lambda: fake.seconds))
    monkeypatch.setattr(ray, "remote", fake.remote)
    monkeypatch.setattr(ray, "kill", fake.killed.append)
    monkeypatch.setattr(ray, "available_resources", lambda: {})
    return fake


def test_an_actor_that_was_asked_for_before_there_were_nodes_keeps_every_cpu_of_them_reading(cluster: FakeCluster):
    run = cluster.run(actors=2, device="cuda")
    cluster.advance(run)
    for name in ("first", "second"):
        cluster.nodes[name] = GPU_NODE
        cluster.advance(run)
        assert run.slots == 15 + 1
    cluster.nodes["cpus"] = {"CPU": 30.0}
    cluster.advance(run)
    assert run.slots == 30 + 1
    assert all(actor.options["max_concurrency"] > run.slots for actor in cluster.alive)


def test_auto_asks_a_cluster_that_grows_for_as_many_again_until_it_grows_no_more(cluster: FakeCluster):
    run = cluster.run(device="cuda")
    waiting = []
    for number in range(4):
        cluster.advance(run)
        waiting.append(len(cluster.alive) - number)
        cluster.nodes[f"gpu {number}"] = GPU_NODE
        cluster.alive[number].loads(f"gpu {number}")
    assert waiting == [1, 1, 2, 3]
    assert not cluster.killed


def test_auto_asks_for_no_more_actors_than_shards_are_left(cluster: FakeCluster):
    run = cluster.run(shards=3, device="cuda")
    cluster.nodes |= {"first": GPU_NODE, "second": GPU_NODE}
    cluster.advance(run)
    assert len(cluster.alive) == 3


def test_auto_takes_the_gpu_that_joins_before_any_actor_has_worked(cluster: FakeCluster):
    run = cluster.run()
    cluster.advance(run)
    assert [actor.options["num_gpus"] for actor in cluster.alive] == [0.0]
    assert "none has a GPU, so actors ask for CPUs only: see model.device" in cluster.notes[0]
    cluster.nodes["gpu"] = GPU_NODE
    cluster.advance(run)
    assert {actor.options["num_gpus"] for actor in cluster.alive} == {1.0}
    assert {actor.options["device"] for actor in cluster.alive} == {"cuda"}, "so that none takes the CPU instead"


def test_a_run_that_works_on_cpus_stays_there(cluster: FakeCluster):
    run = cluster.run()
    cluster.nodes["cpus"] = {"CPU": 4.0}
    cluster.advance(run)
    cluster.started[0].loads("cpus")
    cluster.advance(run)
    cluster.nodes["gpu"] = GPU_NODE
    cluster.advance(run)
    assert {actor.options["num_gpus"] for actor in cluster.alive} == {0.0}


def test_a_run_that_has_seen_a_gpu_does_not_go_back_to_cpus_when_it_is_taken_away(cluster: FakeCluster):
    run = cluster.run()
    cluster.nodes["gpu"] = GPU_NODE
    cluster.advance(run)
    del cluster.nodes["gpu"]
    cluster.advance(run)
    assert {actor.options["num_gpus"] for actor in cluster.alive} == {1.0}


def test_who_waits_for_nodes_is_told_at_once_and_again_and_again(cluster: FakeCluster):
    run = cluster.run(actors=2, device="cuda", gpus_per_actor=4)
    cluster.advance(run)
    cluster.advance(run, WAIT_WARNING_SECONDS)
    cluster.advance(run, WAIT_WARNING_SECONDS)
    first, *later = cluster.notes
    assert first.startswith(
        "cluster.actors: capacity for 0 of 2 now, the others wait: an actor needs 4 GPUs and 1 CPUs"
    )
    assert [note.split(":")[0] for note in later] == ["no actor has been ready for 60 s"] * 2
    assert "ray status" in later[0]


def test_an_actor_that_takes_the_last_cpu_from_the_readers_is_told_of(cluster: FakeCluster):
    """A node with as many CPUs as the actor reserves. Nothing would ever be read, and nobody would say so."""
    run = cluster.run(actors=1, device="cuda", cpus_per_actor=16)
    cluster.nodes["gpu"] = GPU_NODE
    cluster.advance(run)
    cluster.started[0].loads("gpu")
    cluster.advance(run)
    cluster.advance(run, WAIT_WARNING_SECONDS)
    assert cluster.notes[-1].startswith("no reader has had a CPU for 60 s; an actor needs 1 GPUs and 16 CPUs")


def test_a_node_of_another_kind_only_reads_and_actors_keep_off_it(cluster: FakeCluster):
    cluster.nodes |= {"right": GPU_NODE, "wrong": GPU_NODE}
    run = cluster.run(device="cuda", machine="H100")
    cluster.advance(run)
    first, second = cluster.alive[:2]
    assert "label_selector" not in first.options
    first.loads("right", processor="H100")
    second.loads("wrong", processor="V100")
    cluster.advance(run)
    assert [actor.node for actor in run.actors if actor.ready] == ["right"]
    assert second in cluster.killed
    assert "node wrong only reads and decodes: made on H100, not on V100" in cluster.notes
    cluster.nodes["third"] = GPU_NODE
    for _ in range(3):
        cluster.advance(run)
    newest = cluster.alive[-1]
    assert newest.options["label_selector"] == {"ray.io/node-id": "!in(wrong)"}
    newest.loads("third", processor="H100")
    cluster.advance(run)
    assert sorted(actor.node for actor in run.actors if actor.ready) == ["right", "third"]
    assert run.slots == 30 // 2 + 8 + 1  # the CPUs of all three nodes read for two actors


def test_a_cluster_with_nodes_of_another_kind_alone_is_refused(cluster: FakeCluster):
    cluster.nodes |= {"wrong": GPU_NODE, "worse": GPU_NODE}
    run = cluster.run(device="cuda", machine="H100")
    cluster.advance(run)
    first, second = cluster.alive[:2]
    first.loads("wrong", processor="V100")
    cluster.advance(run)
    second.loads("worse", processor="A100")
    with pytest.raises(OutputMismatch, match=r"made on H100, not on A100\. .*run\.machines=any"):
        cluster.advance(run)


def test_a_run_that_has_worked_waits_when_nodes_of_another_kind_are_left(cluster: FakeCluster):
    cluster.nodes |= {"right": GPU_NODE}
    run = cluster.run(device="cuda", machine="H100", actors=1)
    cluster.advance(run)
    cluster.alive[0].loads("right", processor="H100")
    cluster.advance(run)
    del cluster.nodes["right"]
    cluster.nodes["wrong"] = GPU_NODE
    for _ in range(2):
        cluster.advance(run)
    cluster.alive[-1].loads("wrong", processor="V100")
    for _ in range(2):
        cluster.advance(run)
    assert not any(actor.ready for actor in run.actors)
    assert run.fatal_error is None
