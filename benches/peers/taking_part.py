"""Who can take part in what here, and why the others cannot."""

import argparse
import os
import shutil
import subprocess
from fnmatch import fnmatch

from contenders import TABLE, Contender
from data import GIB, Data
from install import Installer, Missing
from measure import Lab
from servers import XET_KINDS
from surroundings import Shape, Unavailable, hierarchy
from workloads import Workload


def provided(asked: argparse.Namespace, installer: Installer,
             say) -> tuple[list[Contender], list[str]]:
    """The contenders that can be had, and a sentence for each of the others."""
    there, missing = [], []
    names = [it.name for it in TABLE] + ["floor"]
    for pattern in asked.contender:
        if not any(fnmatch(name, pattern) for name in names):
            raise SystemExit(f"no contender is called `{pattern}`; there are: {', '.join(names)}")
    for contender in TABLE:
        if not any(fnmatch(contender.name, it) for it in asked.contender):
            continue
        try:
            reason = not_asked_for(contender, asked)
            if reason:
                raise Missing(reason)
            installer.provide(contender)
            there.append(contender)
        except Missing as reason:
            missing.append(f"{contender.name} is skipped: {reason}")
            say(missing[-1])
    return there, missing


def not_asked_for(contender: Contender, asked: argparse.Namespace) -> str:
    """Why a contender has nothing to run, or nothing."""
    if "{before}" in contender.command and not asked.before:
        return "--before says where it is"
    if contender.flag:
        told = subprocess.run([asked.bin, "fetch", "--help"], capture_output=True, text=True)
        if contender.flag not in told.stdout:
            return f"this weightlift has no `{contender.flag}`"
    return ""


def taking_part(workload: Workload, contenders: list[Contender]) -> tuple[list, list[str]]:
    there, notes = [], []
    for contender in contenders:
        if not workload.wants(contender.name):
            continue
        if workload.warm and not contender.warm:
            notes.append(f"{contender.name} has no way of having nothing to do")
        elif workload.server == "tls" and contender.skip_tls:
            notes.append(f"{contender.name} is skipped: {contender.skip_tls}")
        elif contender.uses_xet and workload.server not in XET_KINDS:
            notes.append(f"{contender.name} is skipped: no Xet store is behind this server")
        else:
            there.append(contender)
    return there, notes


def why_not(lab: Lab, workload: Workload, data: Data, link_troubles: dict[Shape, str]) -> str:
    """Why a workload cannot run here, or nothing."""
    if workload.link in link_troubles:
        return link_troubles[workload.link]
    if workload.edges and os.geteuid() != 0:
        return "a file of hosts of its own needs root"
    if workload.memory_limit:
        try:
            hierarchy("memory")
        except Unavailable as reason:
            return str(reason)
    folder = lab.folder(workload)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if data.total * 1.1 > free:
        return (f"needs {data.total * 1.1 / GIB:.0f} GiB, {free / GIB:.0f} GiB are free at its "
                "destination")
    return ""
