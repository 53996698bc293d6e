"""A model's kernels are measured on a device before they are chosen: `measure_on`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import relay, rpc
from warpbeam.driver import guard
from warpbeam.driver.api import compile_with_report
from warpbeam.driver.remote_timer import why_not_there


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path / "cache"))


def network() -> Any:
    x, w, v = (
        relay.var("x", shape=(1, 16, 18, 18)),
        relay.var("w", shape=(24, 16, 3, 3)),
        relay.var("v", shape=(32, 24)),
    )
    y = relay.nn.relu(relay.nn.conv2d(x, w, padding=(1, 1, 1, 1)))
    return relay.Function([x, w, v], relay.nn.dense(relay.mean(y, axis=(2, 3)), v))


def check(module: Any, remote: rpc.RPCSession, folder: Path) -> None:
    """What was chosen gives right results there."""
    module.save(folder / "m.wb")
    remote.upload(folder / "m.wb", "m.wb")
    there = remote.load_module("m.wb")
    inputs = there.random_inputs()
    want = tvm.compile(network()).run(inputs)
    for name, array in there.run(inputs).items():
        np.testing.assert_allclose(array, want[name], rtol=1e-4, atol=1e-5)


def test_variants_are_measured_there(lasting_server: rpc.Server, tmp_path: Path) -> None:
    """With either server; what was found is kept, and nothing is measured again."""
    with rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret) as remote:
        module, report = compile_with_report(network(), guard=0.5, measure_on=remote)
        assert report.guard and any(len(row["variants"]) > 1 for row in report.guard)
        for row in report.guard:
            assert all(v["median_us"] is None or 0 < v["median_us"] < 1e6 for v in row["variants"]), row
            assert any(v["median_us"] is not None for v in row["variants"]), row
        check(module, remote, tmp_path)
        _, again = compile_with_report(network(), guard=0.5, measure_on=remote)
        assert all(row["cached"] for row in again.guard)
        _, here = compile_with_report(network(), guard=0.5)
        assert not any(row.get("cached") for row in here.guard)  # verdicts of another machine are not taken


def test_a_device_of_another_kind(lasting_server: rpc.Server) -> None:
    with rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret) as remote:
        assert "does not run on the device" in why_not_there(remote, tvm.target.get("generic-aarch64"))
        module, report = compile_with_report(network(), target="generic-aarch64", measure_on=remote)
        assert "does not run" in report.guard[0]["out"] and module.artifact.data("code")


def test_a_session_that_ends_leaves_the_prior_s_choice(lasting_server: rpc.Server) -> None:
    remote = rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret)
    found: list[Any] = []
    decide = guard.race

    def closing(count: int, sample: Any, *rest: Any) -> Any:
        if not found:
            found.append(sample(0))
            remote.close()
        return decide(count, sample, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "race", closing)
        _, report = compile_with_report(network(), guard=0.5, measure_on=remote)
    assert found[0] > 0 and all(row["kept"] == 0 for row in report.guard)
    assert "session has ended" in report.guard[0]["variants"][0]["out"]
    with rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret) as again:
        _, report = compile_with_report(network(), guard=0.5, measure_on=again)  # that was no verdict
        assert not any(row["cached"] for row in report.guard)


def test_another_processor(arm: rpc.Server, tmp_path: Path) -> None:
    with rpc.connect(arm.host, arm.port, secret=arm.secret) as remote:
        module, report = compile_with_report(network(), target="generic-aarch64", guard=0.5, measure_on=remote)
        assert any(v["median_us"] is not None for row in report.guard for v in row["variants"])
        check(module, remote, tmp_path)
