"""What becomes of a run whose nodes are all gone."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.distributed.driver
from pipeline import signals
from pipeline.distributed import actor_pool
from tests.support import demo_config


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One node while the run begins, none at every later look, and an end to the wait of a run that does wait."""
    looks = iter([{"node": {"CPU": 4.0}}])
    rounds = iter(range(3))

    def check() -> None:
        if next(rounds, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(actor_pool, "live_nodes", lambda: next(looks, {}))
    monkeypatch.setattr(pipeline.distributed.driver, "live_nodes", dict)
    monkeypatch.setattr(pipeline.distributed.driver, "connect", lambda cluster: None)
    monkeypatch.setattr(pipeline.distributed.driver, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(actor_pool.ActorPool, "_scale", lambda self, wanted, now: None)
    monkeypatch.setattr(signals, "check", check)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("gone")
def test_a_run_whose_own_ray_died_stops_and_says_so(tmp_path: Path):
    summary = pipeline.distributed.driver.run(demo_config(tmp_path / "codes"))
    assert summary.stopped is not None
    assert "the Ray that this run started on this machine has died" in summary.stopped
    assert not (tmp_path / "codes" / "_SUCCESS").exists()


@pytest.mark.usefixtures("gone")
def test_a_run_on_a_cluster_waits_for_nodes(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        pipeline.distributed.driver.run(demo_config(tmp_path / "codes", "cluster.address=head:6379"))
