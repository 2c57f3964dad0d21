"""The operator of a demo, a process on this machine: start it detached, find it again, end it."""

import json
import subprocess
import time
from pathlib import Path

import psutil
import yaml

from .files import CHECKOUT, DemoError, Files, shown
from .story import Story

PROGRAM = CHECKOUT / ".venv" / "bin" / "partwarden"
KUBECTL = ".venv/bin/kubectl"
ACCOUNT = "partwarden"
TOKEN_LIFE = "720h"
GRACE = 15.0
"""Seconds that the operator is given to end by itself; it needs 10 at most."""

# The child writes its own number down before it becomes the operator: nobody can be killed between the two.
LAUNCH = 'echo $$ >"$0" && exec "$@"'


def find(files: Files) -> psutil.Process | None:
    """The operator that was started for this demo, if it runs.

    The number that was written down may belong to another process by now: only the demo's own operator has a command
    line that ends with the name of the demo's own file.
    """
    try:
        process = psutil.Process(int(files.operator_pid.read_text()))
        ours = process.cmdline()[-3:] == ["run", "--kubeconfig", str(files.operator_kubeconfig)]
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def stop(files: Files) -> bool:
    """End the operator and wait; False when none runs. Raises DemoError when it stays."""
    process = find(files)
    if process is None:
        return False
    try:
        # psutil signals nobody but the process that it found.
        process.terminate()
        process.wait(GRACE)
    except psutil.TimeoutExpired:
        process.kill()
        if psutil.wait_procs([process], GRACE)[1]:
            raise DemoError(f"the operator, process {process.pid}, does not end", files.operator_log) from None
    except psutil.NoSuchProcess:
        pass
    return True


def start(story: Story, files: Files, image: str) -> None:
    """Start it as the service account, with the rights of examples/rbac.yaml and no others.

    `image` is what its Jobs run, "" where there are none.
    """
    create = f"{KUBECTL} create token {ACCOUNT} --namespace {ACCOUNT} --duration={TOKEN_LIFE}"
    story.run(f"{create} > {shown(files.token)}")
    files.write(files.operator_kubeconfig, yaml.safe_dump(_kubeconfig(story, files.token), sort_keys=False))
    story.say(f"({shown(files.operator_kubeconfig)} names the cluster and that token)")
    command = [str(PROGRAM), "run", "--kubeconfig", str(files.operator_kubeconfig)]
    config, log = shown(files.operator_kubeconfig), shown(files.operator_log)
    setting = f"PARTWARDEN_JOB_IMAGE={image} " if image else ""
    story.command(f"{setting}{shown(PROGRAM)} run --kubeconfig {config} >{log} 2>&1 &")
    files.operator_pid.unlink(missing_ok=True)
    with files.operator_log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", LAUNCH, str(files.operator_pid), *command],
            cwd=files.folder,
            env=_environment(story) | ({"PARTWARDEN_JOB_IMAGE": image} if image else {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + GRACE
    while not find(files) and process.poll() is None:
        if time.monotonic() > deadline:
            raise DemoError(f"the operator has not begun after {GRACE:.0f} s", files.operator_log)
        time.sleep(0.05)


def why_ended(files: Files) -> str:
    """ "" while the operator runs, else its last words."""
    if find(files):
        return ""
    lines = files.operator_log.read_text(errors="replace").split("\n") if files.operator_log.exists() else []
    said = [line for line in lines if line.strip()]
    return f"the operator ended: {said[-1] if said else 'it did not say why'}"


def _kubeconfig(story: Story, token: Path) -> dict[str, object]:
    """The way to the cluster as the present kubeconfig has it, and the service account instead of its user."""
    view = [str(CHECKOUT / KUBECTL), "config", "view", "--raw", "--minify", "--flatten", "--output", "json"]
    done = subprocess.run(view, env=story.environment, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": ACCOUNT, "cluster": config["clusters"][0]["cluster"]}],
        "users": [{"name": ACCOUNT, "user": {"tokenFile": str(token)}}],
        "contexts": [{"name": ACCOUNT, "context": {"cluster": ACCOUNT, "user": ACCOUNT}}],
        "current-context": ACCOUNT,
    }


def _environment(story: Story) -> dict[str, str]:
    """Without what would change the operator's settings, its way to the cluster or to the database."""
    assert story.environment is not None
    ours = ("PARTWARDEN_", "PG", "KUBE")
    return {name: value for name, value in story.environment.items() if not name.startswith(ours)}
