from __future__ import annotations

from pipelines.runner.patience import Patience
from pipelines.runner.units import Pack, Part, Task

MINUTES = 60.0


def pack(seconds: float) -> Pack:
    return Pack(0, (Task("a", seconds),))


def test_patience_follows_the_slowest() -> None:
    patience = Patience()
    assert patience.seconds_for(pack(120.0)) > 120.0  # nothing is known yet: slower than real time
    patience.learn(pack(59.0), 3.0)  # 20 times real time
    patience.learn(pack(59.0), 2.0)
    assert patience.seconds_for(pack(0.1)) < 3 * MINUTES
    fast = patience.seconds_for(pack(120.0))
    assert 120.0 < fast < 5 * MINUTES
    patience.learn(pack(59.0), 30.0)  # somebody else was busy on this machine
    assert patience.seconds_for(pack(120.0)) > 10 * MINUTES


def test_a_part_may_need_its_whole_file() -> None:
    patience = Patience()
    patience.learn(pack(59.0), 3.0)
    spans = tuple((8 * index, 8 * index + 8) for index in range(390))
    part = Part(0, Task("long", 36_000.0, 1, spans), 7)
    assert patience.seconds_for(part) > 60 * MINUTES
