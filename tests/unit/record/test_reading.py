"""Which lazy tensors are being read, seen from the journal's thread."""

import threading
import time
import types

from hftrace.record.hooks.events import read_handler, shard_tensor_handler
from hftrace.record.reading import Readers
from hftrace.record.recorder import Recorder


def reader(tmp_path, handler, target, original):
    recorder = Recorder(tmp_path)
    recorder.open_loads = 1
    point = types.SimpleNamespace(target=target)
    return handler(recorder, point, 1, original, original)


def test_open_reads_are_seen_with_their_thread_and_are_gone_afterwards(tmp_path):
    inside, go = threading.Barrier(3), threading.Event()

    def slow(tensor, device, dtype):
        inside.wait(10)
        go.wait(10)

    def sharded(self, tensor, device):
        inside.wait(10)
        go.wait(10)

    one = reader(tmp_path, read_handler, "transformers.core_model_loading:_materialize_copy", slow)
    (tmp_path / "b").mkdir()
    target = "transformers.distributed.sharding_utils:DtensorShardOperation.shard_tensor"
    other = reader(tmp_path / "b", shard_tensor_handler, target, sharded)
    tensors = [object(), object()]
    readers = Readers()
    before = time.monotonic_ns()
    threads = [
        threading.Thread(target=one, args=(tensors[0], "cpu", None)),
        threading.Thread(target=other, args=(None, tensors[1], "cpu")),
    ]
    for thread in threads:
        thread.start()
    inside.wait(10)
    assert readers.look() is None  # nothing has been named: nothing is expected
    readers.expected = True
    found = readers.look()
    assert sorted((number, identity) for number, identity, _ in found) == sorted(
        (thread.native_id, id(tensor)) for thread, tensor in zip(threads, tensors, strict=True)
    )
    assert all(before < started < time.monotonic_ns() for _, _, started in found)
    assert readers.look() is None
    go.set()
    for thread in threads:
        thread.join(10)
    assert readers.look() == []
