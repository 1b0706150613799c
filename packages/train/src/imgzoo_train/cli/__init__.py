"""Commands of imgzoo-train, one module each, imported when they run."""

import os

from imgzoo.memory import keep_memory

# Threads of torch that spin while they wait take the processor from the loader's workers and from other programs:
# with as many busy processes as cores a training step was measured to take 5 to 10 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
keep_memory()
