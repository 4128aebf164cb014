//! Where a command is, and as whom.

use crate::World;

/// What a process is, line by line: its namespaces, control groups, users, rights and directory.
const WHAT: &str = "for n in cgroup ipc mnt net pid user uts; do readlink $P/ns/$n; done; cat $P/cgroup; \
                    grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapBnd|Umask):' $P/status; readlink $P/cwd; readlink $P/root";

pub fn in_the_unit(world: &World) {
    let pid = world.show("box.service", "MainPID");
    let unit = world.far().shell(&format!("P=/proc/{pid}; {WHAT}")).unwrap();
    let command = world.in_box(&format!("P=/proc/$$; {WHAT}"));
    assert_eq!(command, unit, "the command is as the unit's main process");
    let machine = world.far().shell(&format!("P=/proc/1; {WHAT}")).unwrap();
    for line in 1..4 {
        let namespace = |text: &str| text.lines().nth(line).unwrap().to_owned();
        assert_ne!(namespace(&unit), namespace(&machine), "the unit has namespaces of its own");
    }
    assert!(command.contains("/system.slice/box.service"), "{command}");

    // PID 1 and the machine's own tools agree.
    let seen = world.in_box("cat /proc/$PPID/cgroup; grep -c box.service /proc/self/cgroup");
    assert!(seen.contains("flotilla-exec-"), "its keeper stays in its own group: {seen}");
    let environment =
        world.in_box("echo $COLOUR; echo $WORDS; echo ${FLOTILLA_TOKEN:+token}; echo ${NOTIFY_SOCKET-none}");
    assert_eq!(environment, "blue\na b\ntoken\nnone\n");
    world.in_box("echo mine >/tmp/only-here");
    let hidden = world.far().exec(&["test", "-e", "/tmp/only-here"]).unwrap();
    assert!(!hidden.status.success(), "its /tmp is the unit's");
    assert_eq!(world.in_box("cat /tmp/only-here"), "mine\n");
    world.expect(2, &["exec", "box", "--machine=m2", "--", "ls", "/nonexistent"]);
    in_a_user_namespace(world);
}

/// Where nobody may choose groups.
fn in_a_user_namespace(world: &World) {
    let text = "[Service]\nExecStart=/bin/sleep infinity\nUser=daemon\nPrivateUsers=yes\n\
                [X-Flotilla]\nMachineMetadata=host=m2\n";
    world.asked().write_file("/root/units/users.service", text).unwrap();
    world.ask(&["start", "/root/units/users.service"]);
    let pid = world.show("users.service", "MainPID");
    let unit = world.far().shell(&format!("P=/proc/{pid}; {WHAT}")).unwrap();
    let command = ["exec", "users", "--", "sh", "-c", &format!("P=/proc/$$; {WHAT}")].map(str::to_owned);
    let entered = world.ask(&command.each_ref().map(String::as_str));
    let place = |text: &str| text.lines().take(8).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(place(&entered), place(&unit));
    assert_eq!(world.ask(&["exec", "users", "--", "id", "-un"]), "daemon\n");
    world.ask(&["destroy", "users"]);
}

/// flotillad's own confinement is not the shell's.
pub fn on_the_machine(world: &World) {
    let line = "echo written >/etc/x && ls -d /root/. && grep NoNewPrivs /proc/self/status && hostname && pwd && \
                cat /proc/self/cgroup";
    let out = world.ask(&["shell", "m2", "--", "sh", "-c", line]);
    assert!(out.starts_with("/root/.\nNoNewPrivs:\t0\nm2\n/root\n"), "{out}");
    assert!(out.contains("/system.slice/flotilla-shell-"), "{out}");
    assert_eq!(world.far().run(&["cat", "/etc/x"]).unwrap(), "written\n");
    assert!(!world.asked().exec(&["test", "-e", "/etc/x"]).unwrap().status.success());
    let root = world.far().run(&["readlink", "/proc/1/ns/mnt"]).unwrap();
    assert_eq!(world.ask(&["shell", "m2", "--", "readlink", "/proc/self/ns/mnt"]), root);

    // Without a command it is a login shell, which reads what it is given.
    let typed = "echo 'echo \"$0 $HOME $USER\"; exit 5' | flotctl shell m2";
    let shell = world.asked().exec(&["sh", "-c", typed]).unwrap();
    assert_eq!(shell.status.code(), Some(5), "{shell:?}");
    let said = String::from_utf8_lossy(&shell.stdout).into_owned();
    assert!(said.starts_with('-') && said.ends_with("sh /root root\n"), "{said}");
    // A machine is meant by the beginning of its id too, and may be the one that is asked.
    let id = &world.asked().id()[..12];
    assert_eq!(world.ask(&["shell", id, "--", "hostname"]), "m1\n");
}

pub fn nowhere(world: &World) {
    let said = world.expect(4, &["exec", "nothing", "--", "true"]).err;
    assert!(said.contains("nothing.service"), "{said}");
    let said = world.expect(4, &["shell", "m9"]).err;
    assert!(said.contains("there is no machine `m9`"), "{said}");
    let said = world.expect(3, &["exec", "box", "--machine=m1", "--", "true"]).err;
    assert!(said.contains("box.service is not on m1"), "{said}");
    world.expect(2, &["exec", "box"]);
    let done = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";
    world.asked().write_file("/root/units/done.service", done).unwrap();
    world.ask(&["start", "/root/units/done.service"]);
    let said = world.expect(3, &["exec", "done", "--", "true"]).err;
    assert!(said.contains("has no process on this machine (it is active)"), "{said}");
}
