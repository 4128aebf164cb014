//! Resources, on a kernel that enforces and counts what control groups say: a virtual machine with a cluster
//! of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use flotilla_integration_tests::{LIMIT, alone, binary, eventually, lab_directory};
use flotilla_lab::VirtualMachine;

/// Takes more memory than it may have.
const GREEDY: &str = "[Service]\\nMemoryMax=20M\\nMemorySwapMax=0\\nExecStart=/usr/bin/tail /dev/zero\\n";

fn boot(name: &str) -> VirtualMachine {
    let programs = [binary("flotillad").unwrap(), binary("flotctl").unwrap()];
    let lab = lab_directory();
    let machine = VirtualMachine::boot(&lab, &lab.join("virtual").join(name), &programs).unwrap();
    machine
        .run("systemd-run --unit=flotillad --property=Type=notify /usr/local/bin/flotillad --dev")
        .unwrap();
    machine
}

#[test]
fn what_a_unit_reserves_is_enforced_and_never_promised_twice() {
    let _alone = alone();
    let machine = boot("reserved");
    let file = |name: &str, text: &str| machine.run(&format!("printf '{text}' > /root/{name}")).unwrap();

    // systemd enforces what placement counted with.
    file("greedy.service", GREEDY);
    let started = machine.exec("flotctl start /root/greedy.service").unwrap();
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    eventually(LIMIT, "the kernel to end it", || {
        let status = machine.exec("flotctl status greedy")?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        anyhow::ensure!(status.contains("oom-kill"), "{status}");
        Ok(Some(()))
    })
    .unwrap_or_else(|e| panic!("{e:#}: {said}"));

    // Half of the memory fits once, and not twice.
    let memory: u64 =
        machine.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").unwrap().trim().parse().unwrap();
    let half = memory * 6 / 10 / 1024;
    file("half@.service", &format!("[Service]\\nMemoryMax={half}M\\nExecStart=/bin/sleep infinity\\n"));
    machine.run("flotctl submit /root/half@.service && flotctl start half@1").unwrap();
    let limit =
        machine.run("cat /sys/fs/cgroup/system.slice/system-half.slice/half@1.service/memory.max").unwrap();
    assert_eq!(limit.trim(), (half * 1024 * 1024).to_string());
    let second = machine.exec("flotctl start half@2").unwrap();
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(5), "{why}");
    assert!(why.contains("memory"), "{why}");
    machine.run("flotctl destroy half@1 && flotctl list-units half@2").unwrap();
    eventually(LIMIT, "the second one to get what the first one gave up", || {
        let state = machine.exec("systemctl is-active half@2")?;
        Ok(state.status.success().then_some(()))
    })
    .unwrap();

    what_units_take_is_counted(&machine);
}

/// `top` shows what the kernel counts: memory that a unit holds, and processor time that it takes.
fn what_units_take_is_counted(machine: &VirtualMachine) {
    let holds = "dd if=/dev/zero of=/run/held bs=1M count=24 && cat /run/held > /dev/null && sleep infinity";
    let works = "while :; do :; done";
    for (name, line) in [("holds", holds), ("works", works)] {
        let text = format!("[Service]\\nExecStart=/bin/sh -c '\\''{line}'\\''\\n");
        machine
            .run(&format!("printf '{text}' > /root/{name}.service && flotctl start /root/{name}.service"))
            .unwrap();
    }
    eventually(LIMIT, "what units take to be counted", || {
        let printed = machine.run("flotctl top --batch --interval=2 -o json")?;
        let snapshot: serde_json::Value = serde_json::from_str(printed.lines().next().unwrap_or_default())?;
        let of = |unit: &str, key: &str| {
            let rows = snapshot["units"].as_array().into_iter().flatten();
            rows.filter(|row| row["unit"] == unit).find_map(|row| row[key].as_f64())
        };
        let held = of("holds.service", "memory_bytes").is_some_and(|bytes| bytes > f64::from(20 << 20));
        let busy = of("works.service", "cpu_percent").is_some_and(|percent| percent > 10.0);
        anyhow::ensure!(held && busy, "{printed}");
        Ok(Some(()))
    })
    .unwrap();
}
