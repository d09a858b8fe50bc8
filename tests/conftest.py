"""Every test runs on one thread: two pytest workers share two cores, and thread counts could move last bits."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
