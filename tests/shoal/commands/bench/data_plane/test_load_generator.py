"""Tests of the load generator and the sampling client against a real replay server."""

from __future__ import annotations

import psutil
import pytest

from shoal.commands.bench.data_plane.load_generator import ROWS, LoadGenerator, fill, make_run, record
from shoal.commands.bench.data_plane.sampling_load import SamplingClient
from shoal.commands.bench.processes import Processes


@pytest.mark.slow
def test_a_load_generator_delivers_its_chunks_and_a_client_samples_batches() -> None:
    run = make_run(capacity=20_000)
    recorded = record(run, 2)
    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        fill(server.endpoint, run, recorded, 4_000)
        load = LoadGenerator(server.endpoint, run, 5, recorded)
        load.connect()
        assert load.pump(0.3) > 0
        load.settle()
        status = server.status()
        assert not status.rejected
        assert status.inserts >= 4_000 + load.acked_rows
        assert load.acked_rows == len(load.take_latencies()) * ROWS
        assert load.take_latencies() == []
        load.close()
        client = SamplingClient(server.endpoint, run)
        assert sum(client.draw() for _ in range(20)) == 20
        assert all(seconds > 0 for seconds in client.round_trips(3))
        client.close()
        directory, pid = processes.directory, server.started.process.pid
    assert not directory.exists()
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
def test_one_chunk_is_sent_and_its_confirmation_timed() -> None:
    run = make_run(capacity=20_000)
    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        load = LoadGenerator(server.endpoint, run, 2, record(run, 1))
        load.connect()
        assert load.confirmation_s() > 0
        assert server.status().inserts == load.acked_rows == ROWS
        load.close()
