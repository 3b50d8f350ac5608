"""A real SLURM on this machine alone: munge, slurmctld and slurmd, on ports of their own.

Debian's packages ``slurm-wlm`` and ``munge`` bring the programs. Nothing of the system's own
configuration is read or changed, and no service manager is needed.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
START_S = 30.0

# Processes are followed by their parents (linuxproc), because control groups may belong to someone
# else here. A requeued job waits until its old credential has expired: cred_expire, at least 5 s.
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=20
SchedulerParameters=sched_interval=1
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why SLURM can't be started here; None if it can."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    return None


class Slurm:
    """A cluster of one node, while it is a context.

    Attributes:
        folder: of its configuration, state and logs; removed at the end.
        conf: what the variable SLURM_CONF must name for its commands to find it.

    Args:
        cpus: that the node says it has; more than there are is fine.
    """

    def __init__(self, *, cpus: int = 4) -> None:
        # short, for sockets, and open to others, unlike pytest's own folders
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        self._environment = os.environ | {"SLURM_CONF": str(self.conf)}
        self._environment["PATH"] = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
        host = socket.gethostname().split(".")[0]
        controller_port, daemon_port = _free_ports(2)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.conf.write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                host=host,
                controller_port=controller_port,
                daemon_port=daemon_port,
                cpus=cpus,
            )
        )

    def __enter__(self) -> "Slurm":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *arguments: str) -> str:
        """Standard output of one of SLURM's commands; it must succeed."""
        done = subprocess.run(
            arguments, env=self._environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def queue(self) -> list[str]:
        """The jobs that wait, run or end."""
        return self.command("squeue", "--noheader", "--format=%i %T").split("\n")[:-1]

    def processes(self, job: str) -> list[int]:
        """The tasks' processes of a running job: those to kill when its node is to fail.

        Args:
            job: its id, ``17`` or ``17_2``.
        """
        shown = self.command("scontrol", "show", "job", job)
        number = shown.partition("JobId=")[2].split()[0]
        listed = self.command("scontrol", "listpids", number).splitlines()[1:]
        rows = [line.split() for line in listed]
        # steps 0, 1 …: the batch script and its srun live on and say what became of them
        return [int(row[0]) for row in rows if row[2].isdigit() and int(row[0]) > 0]

    def stop(self) -> None:
        """Ends jobs and daemons, and removes the folder."""
        if (self.folder / "slurmctld.pid").is_file():
            subprocess.run(
                ["scancel", "--signal=KILL", "--full", "--user=root"],
                env=self._environment,
                capture_output=True,
                timeout=30,
            )
        for name in ("slurmd", "slurmctld", "munged"):
            _end(self.folder / f"{name}.pid")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.command(
            "munged",
            "--force",
            *(f"--key-file={key}", f"--socket={self.folder}/munge.socket"),
            *(f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log"),
            f"--seed-file={self.folder}/munge.seed",
        )
        self.command("slurmctld", "-c")
        self.command("slurmd", "-N", "localhost")
        deadline = time.monotonic() + START_S
        while "idle" not in (shown := self._nodes()):
            assert time.monotonic() < deadline, (
                f"SLURM's node is not ready: {shown}\n"
                + (self.folder / "slurmctld.log").read_text()[-2000:]
            )
            time.sleep(0.2)

    def _nodes(self) -> str:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for found in sockets:
        found.bind(("127.0.0.1", 0))
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _end(pid_file: Path) -> None:
    """Ends the daemon of a pid file, by force if it has to be."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5.0
        try:
            os.kill(pid, number)
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.05)
        except OSError:
            return
