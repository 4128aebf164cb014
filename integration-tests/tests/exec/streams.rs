//! What goes in and comes out, and how it ends.

use flotilla_integration_tests::Follower;

use crate::World;

pub fn statuses(world: &World) {
    let cases: [(&[&str], i32); 7] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ];
    for (command, status) in cases {
        world.expect(status, &[&["exec", "box", "--"], command].concat());
        world.expect(status, &[&["shell", "m2", "--"], command].concat());
    }
    let said = world.expect(127, &["exec", "box", "--", "no-such-program"]).err;
    assert!(said.contains("no-such-program: No such file"), "{said}");
    let both = world.expect(0, &["exec", "box", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"));
    // What a command leaves behind ends with it, and its output comes whole.
    let left = world.ask(&["exec", "box", "--", "sh", "-c", "(trap '' HUP; sleep 5151) & echo begun"]);
    assert_eq!(left, "begun\n");
    world.wait_gone("sleep 5151");
}

pub fn bytes(world: &World) {
    let asked = world.asked();
    asked.shell("head -c 10000000 /dev/urandom >/root/bytes").unwrap();
    let begun = std::time::Instant::now();
    asked.shell("flotctl exec box -- cat </root/bytes >/root/copy && cmp /root/bytes /root/copy").unwrap();
    println!("10 MB to a unit on another machine and back: {:?}", begun.elapsed());
    let ended = asked.shell("flotctl exec box -- sh -c 'wc -c; echo end' </root/bytes").unwrap();
    assert_eq!(ended, "10000000\nend\n", "the end of input is carried");
    // A command that does not read keeps nothing from ending, nor does a reader that has enough.
    asked.shell("flotctl exec box -- true </root/bytes").unwrap();
    assert_eq!(asked.shell("flotctl exec box -- yes | head -n 2").unwrap(), "y\ny\n");
    let slow =
        "flotctl exec box -- sh -c 'head -c 3000000 /dev/zero; echo end >&2' 2>/root/err | (sleep 2; wc -c)";
    assert_eq!(asked.shell(slow).unwrap().trim(), "3000000", "a slow reader gets all");
    assert_eq!(asked.run(&["cat", "/root/err"]).unwrap(), "end\n");
}

pub fn terminal(world: &World) {
    let line = |words: &str| {
        let line = format!("stty rows 30 cols 90; tty >/root/tty; exec env TERM=vt220 flotctl {words}");
        // Some few lines for the whole test.
        ["script", "--quiet", "--return", "--command", &*line.leak(), "/dev/null"]
    };
    let asked = world.asked();
    let output =
        asked.exec(&line("exec box -- sh -c 'stty size; tty; echo $TERM; test -t 2; exit 9'")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(9), "{said}");
    // script(1) types something of its own at the end of its input, which may be echoed in between.
    for part in ["30 90\r\n", "/dev/pts/", "vt220\r\n"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = asked.exec(&line("exec -T box -- sh -c 'tty; exit 3'")).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("not a tty"), "{output:?}");

    let watching = "exec box -- sh -c \"trap 'stty size' WINCH; echo begun; while :; do sleep 0.1; done\"";
    let mut follower = Follower::start_with_input(asked, &line(watching)).unwrap();
    follower.until("begun").unwrap();
    let tty = asked.run(&["cat", "/root/tty"]).unwrap();
    let raw = asked.run(&["stty", "--file", tty.trim(), "--all"]).unwrap();
    assert!(raw.contains("-icanon") && raw.contains("-isig"), "it passes on what is typed: {raw}");
    asked.run(&["stty", "--file", tty.trim(), "rows", "41", "cols", "123"]).unwrap();
    follower.until("41 123").unwrap();
    // Ctrl-C is the command's.
    follower.write(b"\x03").unwrap();
    assert_eq!(follower.end().unwrap().0, Some(128 + 2));

    // The terminal is as it was, also after a signal to flotctl.
    let line = "stty rows 30 cols 90; stty -g >/root/before; flotctl exec box -- sh -c 'echo begun; sleep 6161'; \
                echo status $?; stty -g >/root/after";
    let mut follower =
        Follower::start_with_input(asked, &["script", "--quiet", "--return", "--command", line, "/dev/null"])
            .unwrap();
    follower.until("begun").unwrap();
    asked.shell("kill -TERM $(pidof flotctl)").unwrap();
    follower.until("status 143").unwrap();
    follower.end().unwrap();
    asked.run(&["cmp", "/root/before", "/root/after"]).unwrap();
    world.wait_gone("sleep 6161");
}
