#!/usr/bin/env bash
# Starts a Slurm of two "nodes" on this machine from Debian's packages, below the folder $1. Root only.
# PREEMPT_SIGNAL=1 lets preemption send the signal of --signal first.
set -euo pipefail
D=$1; H=$(hostname -s); export PATH=$PATH:/usr/sbin
mkdir -p "$D"/{state,log,spool.n1,spool.n2} /run/munge
cat > "$D/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$H(127.0.0.1)
SlurmctldPort=16917
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,requeue_delay=0
${PREEMPT_SIGNAL:+SlurmctldParameters=preempt_send_user_signal}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
MinJobAge=300
MailProg=/bin/true
SlurmctldPidFile=$D/ctld.pid
SlurmctldLogFile=$D/log/ctld.log
StateSaveLocation=$D/state
SlurmdPidFile=$D/slurmd.%n.pid
SlurmdLogFile=$D/log/slurmd.%n.log
SlurmdSpoolDir=$D/spool.%n
SlurmdParameters=config_overrides
SlurmdDebug=debug
NodeName=DEFAULT CPUs=2 RealMemory=4000
NodeName=n1 NodeHostname=$H NodeAddr=127.0.0.1 Port=16921
NodeName=n2 NodeHostname=$H NodeAddr=127.0.0.1 Port=16922
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 DefMemPerCPU=500 PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2 MaxTime=60 DefMemPerCPU=500 PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF=$D/slurm.conf
chown munge: /run/munge; chmod 755 /run/munge
munge -n 2>/dev/null | unmunge >/dev/null 2>&1 || runuser -u munge -- munged
slurmctld -i
for n in n1 n2; do slurmd -N $n; done
for _ in $(seq 150); do timeout 20 srun -N2 -t1 true >/dev/null 2>&1 && exit 0; sleep .2; done
echo "Slurm does not answer" >&2; tail -n 5 "$D"/log/*.log >&2; exit 1
