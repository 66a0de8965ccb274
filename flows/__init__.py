"""The application's composition: flows, their config, and the command line."""

import os

# OpenMP reads it when torch and FAISS are loaded. Threads that wait in a loop keep those they wait for off the cores: beside one other busy
# process, training the anchors of 10,000 items took 13 s instead of 4, and it takes no longer alone.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
