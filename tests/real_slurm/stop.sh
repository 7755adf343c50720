#!/usr/bin/env bash
# Stops what start.sh has started below the folder $1, by the numbers of its processes.
D=$1; export PATH=$PATH:/usr/sbin SLURM_CONF=$1/slurm.conf
scancel -u root 2>/dev/null; sleep 0.5
for name in slurmd.n1 slurmd.n2 ctld; do
  [ -s "$D/$name.pid" ] || continue
  pid=$(cat "$D/$name.pid"); kill "$pid" 2>/dev/null
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
done
exit 0
