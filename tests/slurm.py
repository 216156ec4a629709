"""A real slurmctld with its slurmd on this machine, for tests: `with cluster(directory, nodes=2):`.

Within it the commands of SLURM (sbatch, squeue, scontrol) speak to this cluster, by SLURM_CONF. Two partitions: "main"
is the default, and jobs of "urgent" preempt those of "main", which are queued again.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("slurm-wlm", "munge")  # of Debian
CONTROL_PORT, NODE_PORT = 16817, 16900
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CryptoType=crypto/munge
SlurmctldPort={port}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/state/slurmctld.pid
SlurmdPidFile={directory}/state/slurmd-%n.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,defer_batch=0
SchedulerType=sched/backfill
JobRequeue=1
KillWait=10
InactiveLimit=0
MinJobAge=600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@contextlib.contextmanager
def cluster(directory: Path, nodes: int = 2, cores: int | None = None) -> Iterator[None]:
  """Starts the cluster; all of its files are below `directory`. Skips the test where it cannot be had.

  cores: CPUs of each node, by default those of the machine, which all nodes share.
  """
  provide()
  start(directory, nodes, cores or os.cpu_count() or 1)
  before = os.environ.get("SLURM_CONF")
  os.environ["SLURM_CONF"] = str(directory / "slurm.conf")
  try:
    until(lambda: {*output("sinfo", "-h", "-N", "-o", "%T").split()} == {"idle"}, "the nodes are idle")
    yield
  finally:
    end_jobs()
    stop(directory)
    if before is None:
      del os.environ["SLURM_CONF"]
    else:
      os.environ["SLURM_CONF"] = before


def provide() -> None:
  """Installs SLURM where that may be done, and makes the names of nodes resolve; skips the test elsewhere."""
  if os.name != "posix" or os.geteuid() != 0:
    pytest.skip("a cluster of SLURM for tests needs root")
  if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
    if not shutil.which("apt-get"):
      pytest.skip("SLURM is not installed, and there is no apt-get to install it by")
    command = ["apt-get", "install", "-y", "-qq", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
      pytest.skip(f"SLURM cannot be installed: {(done.stderr.strip() or 'apt-get failed').splitlines()[-1]}")
  names = [f"n{number}" for number in range(1, 9)]
  if any(f" {name}" not in Path("/etc/hosts").read_text() for name in names):
    with open("/etc/hosts", "a") as file:  # jax.distributed asks for the address of the first node
      file.write(f"127.0.0.1 {' '.join(names)}\n")


def start(directory: Path, nodes: int, cores: int) -> None:
  """Writes slurm.conf and starts munged, slurmctld and a slurmd for each node."""
  for name in ("state", "spool", "log", "munge"):
    (directory / name).mkdir(parents=True, exist_ok=True)
  munge = directory / "munge"
  munge.chmod(0o700)
  (munge / "munge.key").write_bytes(os.urandom(1024))
  (munge / "munge.key").chmod(0o400)
  host = socket.gethostname().partition(".")[0]
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
  text = CONF.format(host=host, socket=munge / "socket", port=CONTROL_PORT, directory=directory)
  lines = [
    f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={NODE_PORT + number} CPUs={cores} "
    f"RealMemory={memory} State=UNKNOWN"
    for number in range(1, nodes + 1)
  ]
  # Nodes must be known before the partitions that hold them.
  (directory / "slurm.conf").write_text(text.replace("PartitionName=main", "\n".join([*lines, "PartitionName=main"])))
  environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
  files = {
    "key-file": "munge.key",
    "socket": "socket",
    "pid-file": "munged.pid",
    "seed-file": "seed",
    "log-file": "log",
  }
  commands = [["munged", "--force", *(f"--{flag}={munge / name}" for flag, name in files.items())], ["slurmctld", "-i"]]
  for command in [*commands, *(["slurmd", "-N", f"n{number}"] for number in range(1, nodes + 1))]:
    subprocess.run(command, env=environment, check=True, capture_output=True)


def end_jobs() -> None:
  """Ends what a test that failed has left in the queue; the daemons do not take it with them."""
  with contextlib.suppress(subprocess.CalledProcessError, AssertionError):
    subprocess.run(["scancel", "--user=root"], check=True, capture_output=True)
    until(lambda: not output("squeue", "-h"), "the queue is empty", 30)


def stop(directory: Path) -> None:
  """Ends what `start` has started."""
  pids = [
    *(directory / "state").glob("slurmd-*.pid"),
    directory / "state/slurmctld.pid",
    directory / "munge/munged.pid",
  ]
  for path in pids:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
      os.kill(int(path.read_text()), signal.SIGTERM)


def output(*command: str) -> str:
  """The standard output of a command."""
  return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(condition, what: str, seconds: float = 120.0) -> None:
  """Waits until `condition()` holds; fails after `seconds`."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, f"not within {seconds} s: {what}"
    time.sleep(0.2)
