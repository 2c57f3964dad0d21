"""The operator of a demo, a process on this machine: start it detached, find it again, stop it."""

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

# The shell writes its process ID before it becomes the operator, so no operator ever runs unrecorded.
LAUNCH = 'echo $$ >"$0" && exec "$@"'


def find(files: Files) -> psutil.Process | None:
    """The running operator of this demo, or None.

    The recorded process ID may belong to another process by now: only the demo's own operator has a command
    line that ends with the name of the demo's own file.
    """
    try:
        process = psutil.Process(int(files.operator_pid.read_text()))
        ours = process.cmdline()[-3:] == ["run", "--kubeconfig", str(files.operator_kubeconfig)]
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def stop(files: Files) -> bool:
    """Stop the operator and wait for its end. False when none runs. Raises DemoError when it does not end."""
    process = find(files)
    if process is None:
        return False
    try:
        # psutil signals only the process that it found, even if its ID was reused.
        process.terminate()
        process.wait(GRACE)
    except psutil.TimeoutExpired:
        process.kill()
        if psutil.wait_procs([process], GRACE)[1]:
            raise DemoError(
                f"cannot stop the operator, process {process.pid}: it did not end after SIGKILL", files.operator_log
            ) from None
    except psutil.NoSuchProcess:
        pass
    return True


def start(story: Story, files: Files, image: str) -> None:
    """Start the operator as the service account, with the rights of examples/rbac.yaml and no others.

    `image` is what its Jobs run, with pyarrow, "" where Jobs cannot run.
    """
    create = f"{KUBECTL} create token {ACCOUNT} --namespace {ACCOUNT} --duration={TOKEN_LIFE}"
    story.run(f"{create} > {shown(files.token)}")
    files.write(files.operator_kubeconfig, yaml.safe_dump(_kubeconfig(story, files.token), sort_keys=False))
    story.say(f"({shown(files.operator_kubeconfig)} names the cluster and that token)")
    command = [str(PROGRAM), "run", "--kubeconfig", str(files.operator_kubeconfig)]
    config, log = shown(files.operator_kubeconfig), shown(files.operator_log)
    settings = {"PARTWARDEN_JOB_IMAGE": image, "PARTWARDEN_JOB_PARQUET": "true"} if image else {}
    setting = "".join(f"{name}={value} " for name, value in settings.items())
    story.command(f"{setting}{shown(PROGRAM)} run --kubeconfig {config} >{log} 2>&1 &")
    files.operator_pid.unlink(missing_ok=True)
    with files.operator_log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", LAUNCH, str(files.operator_pid), *command],
            cwd=files.folder,
            env=_environment(story) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + GRACE
    while not find(files) and process.poll() is None:
        if time.monotonic() > deadline:
            raise DemoError(f"cannot start the operator: it did not run within {GRACE:.0f} s", files.operator_log)
        time.sleep(0.05)


def why_ended(files: Files) -> str:
    """Why the operator ended: the last line of its log; "" while it runs."""
    if find(files):
        return ""
    lines = files.operator_log.read_text(errors="replace").split("\n") if files.operator_log.exists() else []
    said = [line for line in lines if line.strip()]
    return f"the operator ended: {said[-1] if said else 'its log is empty'}"


def _kubeconfig(story: Story, token: Path) -> dict[str, object]:
    """The present kubeconfig, with the service account's token instead of its user."""
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
    """The story's environment without variables that change the operator's settings, cluster or database."""
    assert story.environment is not None
    ours = ("PARTWARDEN_", "PG", "KUBE")
    return {name: value for name, value in story.environment.items() if not name.startswith(ours)}
