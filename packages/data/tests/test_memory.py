"""A large index stays flat: workers share it, and epochs do not copy it."""

import os
import subprocess
import sys

SCRIPT = """
import json, os, sys
import numpy as np
from imgzoo_data import create_loader, create_transform
from imgzoo_data.sources.base import Sample, Source
from imgzoo_data.sources.index import PackedIndex

COUNT = int(sys.argv[1])
names = [f"n{i % 1000:08}/n{i % 1000:08}_{i:07}.JPEG" for i in range(1000)]
length = len(names[0])
blob = np.frombuffer("".join(names).encode() * (COUNT // 1000), np.uint8)
index = PackedIndex(blob, np.arange(1, COUNT + 1) * length, np.arange(COUNT, dtype=np.int32) % 1000)
assert index.nbytes / COUNT - length < 100

class Big(Source):
    num_classes = 1000
    image = np.zeros((8, 8, 3), np.uint8)
    def __len__(self):
        return COUNT
    def __getitem__(self, i):
        return Sample(self.image, int(index.targets[i]), index.name(i))

def summed(loader):
    pids = [os.getpid(), *(w.pid for w in loader._engine._iterator._workers)]
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total

transform = create_transform(input_size=(3, 8, 8), training=True)
loader = create_loader(Big(), transform, 200, workers=2, steps_per_epoch=25)
marks = []
for epoch in range(3):
    for step, batch in enumerate(loader):
        if step in (12, 24):
            marks.append(summed(loader))
loader.close()
print(json.dumps(marks))
"""


def test_a_million_files_three_epochs_two_workers():
    import json

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "1000000"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    marks = json.loads(done.stdout)
    assert marks[-1] < 1.05 * marks[0], marks
