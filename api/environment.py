"""Settings that torch reads from the environment, once, when it is loaded.

Imported for its effect, by `import clipmsa`: it acts where torch is not loaded yet. What a user has
set is left as it is.
"""

import os

# torch's threads (GNU OpenMP) spin while they wait for one another. On a machine that is busy with
# something else, a spinning thread starves the one it waits for: training a small model became
# ten times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Tensors of 2 MB and more are put on huge pages (Linux), and begin on a page. The allocator then
# finds a use again for what was freed, where it kept ever more that fitted nothing: the memory of a
# long run is flat after a minute. A tenth to a third of the time, that of page faults, is saved.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
