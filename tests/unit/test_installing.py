"""What `lender install` and `lender uninstall` would do, from what they find."""

import plistlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lender.cli.exits import CommandError, Exit
from lender.cli.install import UNITS
from lender.cli.installing import host, launchd, systemd, templates
from lender.cli.installing.plan import Plan, Remove, Run, Target, Write, draft

PROGRAMS = {name: f"/opt/lender/bin/{name}" for name in ("lender", "lenderd", "lender-broker")}
MINE, MACHINES = Target("lenderd", system=False), Target("lenderd", system=True)
FOLDER = Path("/units")
ACCOUNTS = Path("/shipped/sysusers.d/lender.conf")
PLISTS = sorted((UNITS / "launchd").glob("*/*.plist"))


def units(target: Target, programs: dict[str, str] = PROGRAMS) -> dict[str, str]:
    shipped = UNITS / "systemd"
    texts = {name: (shipped / path).read_text() for name, path in systemd.sources(target).items()}
    return {name: templates.unit(text, programs) for name, text in texts.items()}


def found(
    files: dict[Path, str],
    *,
    enabled: bool = False,
    active: bool = False,
    accounts: bool = True,
    lingers: bool = False,
    changing: bool = False,
    outdated: bool = False,
) -> systemd.Found:
    return systemd.Found(
        FOLDER,
        files.get,
        lambda folder: any(path.parent == folder for path in files),
        enabled,
        active,
        accounts,
        lingers,
        changing,
        outdated,
    )


def carried_out(files: dict[Path, str], plan: Plan) -> tuple[dict[Path, str], list[str]]:
    """The files afterwards, and the commands that were run."""
    files, ran = dict(files), []
    for step in plan.steps:
        match step:
            case Write(path, content, kept):
                if kept is not None:
                    files[kept] = files[path]
                files[path] = content
                files.pop(draft(path), None)
            case Remove(path, kept):
                content = files.pop(path)
                if kept is not None:
                    files[kept] = content
            case Run(command):
                ran.append(" ".join(command))
    return files, ran


def installed(target: Target = MINE, programs: dict[str, str] = PROGRAMS) -> dict[Path, str]:
    plan = systemd.install(target, units(target, programs), ACCOUNTS, found({}), replace=False)
    return carried_out({}, plan)[0]


def test_a_first_time_writes_the_units_and_starts_them_now_and_later() -> None:
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, found({}), replace=False)
    files, ran = carried_out({}, plan)
    assert set(files) == {FOLDER / "lenderd.service", FOLDER / "lender.slice"}
    assert "\nExecStart=/opt/lender/bin/lenderd\n" in files[FOLDER / "lenderd.service"]
    assert ran == [
        "systemctl --user daemon-reload",
        "systemctl --user enable lenderd.service",
        "systemctl --user reset-failed lenderd.service",
        "systemctl --user start lenderd.service",
    ]


def test_a_machines_service_gets_its_account_before_all_else() -> None:
    nobody = found({}, accounts=False)
    plan = systemd.install(MACHINES, units(MACHINES), ACCOUNTS, nobody, replace=False)
    assert plan.steps[0] == Run(("systemd-sysusers", str(ACCOUNTS)))
    assert "User=lender\n" in carried_out({}, plan)[0][FOLDER / "lenderd.service"]
    shipped = UNITS / "systemd"
    for name, account in systemd.RUNS_AS.items():
        assert f"\nUser={account}\n" in (shipped / "system" / f"{name}.service").read_text()
        assert f"u {account} " in (shipped / systemd.ACCOUNTS).read_text()


def test_a_second_time_does_nothing() -> None:
    running = found(installed(), enabled=True, active=True, lingers=True)
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, running, replace=False)
    assert (plan.steps, plan.notes) == ((), ())


def test_an_agent_is_of_a_session_and_wants_no_lingering() -> None:
    agent = Target("lender-agent", system=False)
    plan = systemd.install(agent, units(agent), ACCOUNTS, found({}), replace=False)
    assert plan.notes == ()
    files = carried_out({}, plan)[0]
    on = found(files, enabled=True, active=True, lingers=True)
    assert systemd.uninstall(agent, on).notes == ()
    mine = systemd.install(MINE, units(MINE), ACCOUNTS, found({}), replace=False)
    assert "loginctl enable-linger" in mine.notes[0]


def test_what_fails_and_is_started_again_and_again_is_not_taken_for_well() -> None:
    failing = found(installed(), enabled=True, changing=True)
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, failing, replace=False)
    assert carried_out(installed(), plan)[1] == [
        "systemctl --user daemon-reload",
        "systemctl --user reset-failed lenderd.service",
        "systemctl --user start lenderd.service",
    ]
    plan = systemd.uninstall(MINE, found(installed(), changing=True))
    assert plan.steps[0] == Run(("systemctl", "--user", "disable", "--now", "lenderd.service"))


def test_after_an_upgrade_it_runs_anew_also_where_the_unit_is_as_it_was() -> None:
    old = found(installed(), enabled=True, active=True, outdated=True)
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, old, replace=False)
    assert carried_out(installed(), plan)[1] == [
        "systemctl --user daemon-reload",
        "systemctl --user restart lenderd.service",
    ]


def test_a_new_version_is_written_and_started_anew_and_drop_ins_stay() -> None:
    override = FOLDER / "lenderd.service.d" / "override.conf"
    files = {**installed(), override: "[Service]\nMemoryMax=2G\n"}
    moved = {name: path.replace("/opt", "/srv") for name, path in PROGRAMS.items()}
    running = found(files, enabled=True, active=True)
    plan = systemd.install(MINE, units(MINE, moved), ACCOUNTS, running, replace=False)
    after, ran = carried_out(files, plan)
    assert "ExecStart=/srv/lender/bin/lenderd" in after[FOLDER / "lenderd.service"]
    assert after[override] == files[override]
    assert ran == ["systemctl --user daemon-reload", "systemctl --user restart lenderd.service"]


@pytest.mark.parametrize("theirs", ["[Service]\nExecStart=/bin/true\n", "edited"])
def test_a_unit_that_is_not_as_we_wrote_it_is_left_alone_unless_told(theirs: str) -> None:
    service = FOLDER / "lenderd.service"
    files = installed()
    files[service] = files[service].replace("Sec=60", "Sec=90") if theirs == "edited" else theirs
    running = found(files, enabled=True, active=True)
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, running, replace=False)
    assert not plan.steps
    assert "systemctl --user edit lenderd.service" in plan.notes[0]
    plan = systemd.install(MINE, units(MINE), ACCOUNTS, running, replace=True)
    after, _ = carried_out(files, plan)
    assert after[service] == installed()[service]
    assert after[service.with_name("lenderd.service.kept")] == files[service]


def test_the_unit_of_a_package_is_switched_on_and_not_written_once_more() -> None:
    packaged = {
        Path("/usr/lib/systemd/system", name): text for name, text in units(MACHINES).items()
    }
    plan = systemd.install(MACHINES, units(MACHINES), ACCOUNTS, found(packaged), replace=False)
    files, ran = carried_out(packaged, plan)
    assert files == packaged
    assert ran[:2] == ["systemctl daemon-reload", "systemctl enable lenderd.service"]
    on = found(packaged, enabled=True, active=True)
    plan = systemd.uninstall(MACHINES, on)
    assert carried_out(packaged, plan)[0] == packaged
    assert plan.notes == ("lenderd.service of a package stays, switched off",)


class Manager:
    """A machine whose systemd or launchd does what it is told, until whoever tells is cut off."""

    def __init__(self, files: dict[Path, str]) -> None:
        self.files = files
        self.runs: dict[Path, str] | None = None
        """The files as they were when it was started; None: it does not run."""
        self.on = False
        """It starts by itself; for launchd: it is loaded."""

    def found(self) -> systemd.Found:
        runs, outdated = self.runs is not None, self.runs not in (None, self.files)
        return found(self.files, enabled=self.on, active=runs, lingers=True, outdated=outdated)

    def found_on_a_mac(self) -> launchd.Found:
        there, left = self.files.get(PLIST), frozenset(self.files) - {PLIST}
        return launchd.Found(PLIST, there, self.on, 501, self.runs != self.files, left)

    def carry_out(self, plan: Plan, steps: int) -> None:
        """Do the first steps; of one that writes a file that comes next, a half."""
        self.files, ran = carried_out(self.files, Plan(plan.steps[:steps]))
        for word in (word for line in ran for word in line.split()):
            if word in ("start", "restart", "bootstrap"):
                self.runs = dict(self.files)
            if word in ("disable", "bootout"):
                self.runs, self.on = None, False
            if word in ("enable", "bootstrap"):
                self.on = True
        match plan.steps[steps : steps + 1]:
            case (Write(path, content, _),):
                self.files[draft(path)] = content[:20]

    def state(self) -> tuple[dict[Path, str], dict[Path, str] | None, bool]:
        return self.files, self.runs, self.on


PLIST = Path("/Users/a/Library/LaunchAgents/lender.lenderd.plist")
MOVED = {name: path.replace("/opt", "/srv") for name, path in PROGRAMS.items()}


def plans(manager: Manager, programs: dict[str, str]) -> tuple[Plan, Plan]:
    """What installing and undoing come to now, by systemd."""
    now = manager.found()
    texts = units(MINE, programs)
    return systemd.install(MINE, texts, ACCOUNTS, now, replace=True), systemd.uninstall(MINE, now)


def plans_on_a_mac(manager: Manager, programs: dict[str, str]) -> tuple[Plan, Plan]:
    now = manager.found_on_a_mac()
    shipped = (UNITS / "launchd" / str(launchd.source(MINE))).read_text()
    text = templates.plist(shipped, programs, "/Users/a")
    return launchd.install(MINE, text, now, replace=True), launchd.uninstall(MINE, now)


@pytest.mark.parametrize("of", [plans, plans_on_a_mac])
@pytest.mark.parametrize("before", ["nothing", "an older one", "an edited one"])
def test_who_is_cut_off_types_it_again_or_undoes_it(
    of: Callable[[Manager, dict[str, str]], tuple[Plan, Plan]], before: str
) -> None:
    def machine() -> Manager:
        made = Manager({})
        if before != "nothing":
            made.carry_out(of(made, PROGRAMS)[0], 99)
        if before == "an edited one":
            made.files = {path: f"{text} " for path, text in made.files.items()}
        return made

    def reached(manager: Manager, *, installed: bool) -> Manager:
        manager.carry_out(of(manager, MOVED)[not installed], 99)
        return manager

    whole = reached(machine(), installed=True).state()
    assert whole[1:] == (whole[0], True)
    for steps in range(8):
        again, undone, half_undone = machine(), machine(), reached(machine(), installed=True)
        for manager in (again, undone):
            manager.carry_out(of(manager, MOVED)[0], steps)
        half_undone.carry_out(of(half_undone, MOVED)[1], steps)
        files, runs, on = reached(again, installed=True).state()
        drafts = {path for path in files if path.name.endswith(".new")}
        assert (files, runs is not None, on) == (whole[0], True, True), (steps, drafts)
        assert runs == files
        for manager in (undone, half_undone):
            files, runs, on = reached(manager, installed=False).state()
            assert {path.suffix for path in files} <= {".kept"}
            assert (runs, on, bool(files)) == (None, False, before == "an edited one")


def test_uninstall_leaves_nothing_but_what_is_the_owners() -> None:
    override = FOLDER / "lenderd.service.d" / "memory.conf"
    files = {**installed(), override: "[Service]\n"}
    plan = systemd.uninstall(MINE, found(files, enabled=True, active=True, lingers=True))
    after, ran = carried_out(files, plan)
    assert set(after) == {override}
    assert ran[0] == "systemctl --user disable --now lenderd.service"
    assert plan.notes[0] == "your changes in /units/lenderd.service.d stay"
    assert "loginctl disable-linger" in plan.notes[1]
    assert not systemd.uninstall(MINE, found(after)).steps, "and does nothing the next time"
    plan = systemd.uninstall(MACHINES, found(installed(MACHINES), enabled=True))
    assert plan.notes == ("the account lender stays: files may be its",)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/a b/lenderd", '"/a b/lenderd"'),
        ("/100%/lenderd", '"/100%%/lenderd"'),
        ("/ünï/lenderd", '"/ünï/lenderd"'),
    ],
)
def test_odd_folders_are_written_as_systemd_reads_them(path: str, word: str) -> None:
    texts = units(MINE, {**PROGRAMS, "lenderd": path})
    assert re.findall(r"^Exec\w+=.*$", texts["lenderd.service"], re.MULTILINE) == [
        f"ExecStart={word}",
        f"ExecStopPost={word} --end-leftovers",
    ]


@pytest.mark.parametrize("path", ["/a\nUser=root/lenderd", '/a"b/lenderd', "/$HOME/lenderd"])
def test_folders_that_a_unit_can_not_name_are_refused(path: str) -> None:
    with pytest.raises(templates.PathError, match="another folder"):
        units(MINE, {**PROGRAMS, "lenderd": path})


def test_where_nobody_manages_services_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"docs/installing\.md"):
        host.manager(tmp_path, "linux")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "version").write_text("Linux version 6.6.1-microsoft-standard-WSL2")
    with pytest.raises(CommandError, match=r"/etc/wsl\.conf"):
        host.manager(tmp_path, "linux")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert (host.manager(tmp_path, "linux"), host.manager(tmp_path, "darwin")) == (
        "systemd",
        "launchd",
    )


@pytest.mark.parametrize(
    ("target", "uid", "code"),
    [(MACHINES, 1000, Exit.NOT_PERMITTED), (MINE, 0, Exit.USAGE), (MINE, 1000, Exit.FAILED)],
)
def test_who_can_not_have_such_a_service_is_told_who_can(
    target: Target, uid: int, code: Exit
) -> None:
    with pytest.raises(CommandError) as caught:
        host.check_who(target, uid, {})
    assert caught.value.code == code
    assert "sudo" in str(caught.value)


def test_a_program_that_the_account_can_not_reach_is_no_service_of_the_machine() -> None:
    with pytest.raises(CommandError, match="all users"):
        host.check_reach("/home/pi/.venv/bin/lenderd")


def test_nor_is_what_nix_writes_or_collects(tmp_path: Path) -> None:
    user, system = Target("lenderd", system=False), Target("lenderd", system=True)
    for target in (user, system):
        host.check_kept(target, ["/opt/lender/bin/lenderd"], tmp_path)
        with pytest.raises(CommandError, match=r"garbage collection.*nix profile install"):
            host.check_kept(
                target, ["/usr/bin/lender", "/nix/store/x-lender/bin/lenderd"], tmp_path
            )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/NIXOS").touch()
    host.check_kept(user, ["/home/ann/.nix-profile/bin/lenderd"], tmp_path)
    with pytest.raises(CommandError, match=r"stand in its configuration.*docs/nix\.md"):
        host.check_kept(system, ["/run/current-system/sw/bin/lenderd"], tmp_path)


@pytest.mark.parametrize(("mode", "reason"), [(0o700, "can't get to"), (0o757, "can change")])
def test_nor_one_that_somebody_else_could_replace(tmp_path: Path, mode: int, reason: str) -> None:
    program = tmp_path / "lenderd"
    program.touch()
    program.chmod(mode)
    with pytest.raises(CommandError, match=reason):
        host.check_reach(str(program))


KEYS = {
    "Label": str, "ProgramArguments": list, "RunAtLoad": bool, "KeepAlive": dict,
    "ThrottleInterval": int, "ExitTimeOut": int, "ProcessType": str, "LowPriorityIO": bool,
    "Nice": int, "Umask": int, "EnvironmentVariables": dict, "StandardOutPath": str,
    "StandardErrorPath": str,
}  # fmt: skip
"""Of launchd.plist(5), those that we use: launchd ignores a key that it does not know."""


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_property_lists_say_what_launchd_knows(path: Path) -> None:
    text = templates.marked(templates.plist(path.read_text(), PROGRAMS, "/Users/a & b"))
    said = plistlib.loads(text.encode())
    assert {key: type(value) for key, value in said.items()} == {key: KEYS[key] for key in said}
    assert said["Label"] == path.stem
    assert said["ProgramArguments"][0] in PROGRAMS.values()
    assert said["KeepAlive"] == {"Crashed": True, "SuccessfulExit": False}
    assert (said["ProcessType"], said["ThrottleInterval"]) == ("Background", 30)
    logs = "/Library/Logs/" if path.parent.name == "daemon" else "/Users/a & b/Library/Logs/"
    assert said["StandardErrorPath"].startswith(logs)
    variables = said.get("EnvironmentVariables", {})
    assert all(isinstance(value, str) for value in variables.values())
    # As root it never runs work: it turns into an account, or does not start.
    assert ("LENDERD_USER" in variables) == (path.parent.name == "daemon")


def test_a_mac_gets_its_agent_once_and_loses_it_whole() -> None:
    source = launchd.source(MINE)
    assert source is not None
    text = templates.plist((UNITS / "launchd" / source).read_text(), PROGRAMS, "/Users/a")
    file = Path("/Users/a/Library/LaunchAgents/lender.lenderd.plist")
    plan = launchd.install(MINE, text, launchd.Found(file, None, False, 501), replace=False)
    files, ran = carried_out({}, plan)
    assert ran == [
        "launchctl enable gui/501/lender.lenderd",
        f"launchctl bootstrap gui/501 {file}",
    ]
    there = launchd.Found(file, files[file], loaded=True, uid=501)
    assert not launchd.install(MINE, text, there, replace=False).steps
    newer = text.replace("<integer>30<", "<integer>60<")
    _, ran = carried_out(files, launchd.install(MINE, newer, there, replace=False))
    assert ran[0] == "launchctl bootout gui/501/lender.lenderd"
    after, ran = carried_out(files, launchd.uninstall(MINE, there))
    assert (after, ran) == ({}, ["launchctl bootout gui/501/lender.lenderd"])


def test_on_a_mac_a_broker_is_nobodys_daemon() -> None:
    assert launchd.source(Target("lender-broker", system=True)) is None
    assert launchd.source(Target("lender-broker", system=False)) == "agent/lender.broker.plist"
