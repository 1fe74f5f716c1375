"""Set-up that must come before torch is loaded, and one thread for tests of small networks."""

from __future__ import annotations

import os

# Two threads that wait for one another crawl on a machine that is busy with something else.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach for a hub: what is not there must fail at once, here as on a machine offline.
os.environ["HF_HUB_OFFLINE"] = "1"
