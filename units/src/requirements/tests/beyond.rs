//! What goes beyond fleet's options.

use super::*;
use crate::{Comparison, PreferTerm};

const T: &str = "web@1.service";

fn shown<T: ToString>(these: impl IntoIterator<Item = T>) -> Vec<String> {
    these.into_iter().map(|it| it.to_string()).collect()
}

#[test]
fn a_machine_is_named_by_id_prefix_or_host() {
    let machine = |text: &str| of(&format!("MachineID={text}\n"), T).machine.unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let whole = MachineChoice::Id(id.parse().unwrap());
    for text in
        [id, "0123456789ABCDEF0123456789ABCDEF", "01234567-89ab-cdef-0123-456789abcdef", &format!("\"{id}\"")]
    {
        assert_eq!(machine(text), whole, "{text}");
    }
    assert_eq!(machine("01234567"), MachineChoice::Prefix("01234567".into()));
    assert_eq!(machine("0123456789ABCDEF"), MachineChoice::Prefix("0123456789abcdef".into()));
    for host in ["db1", "0123456", "node-1.example.com", "Node-1", "cafe"] {
        assert_eq!(machine(host), MachineChoice::Host(host.to_ascii_lowercase()), "{host}");
    }
    for bad in ["db1 db2", "-a", "a..b", "a.", "dü", "0123456789abcdef0123456789abcdef0", &"a.".repeat(40)] {
        assert!(
            refusal(&format!("MachineID={bad}\n")).contains("expected the 32 hexadecimal digits"),
            "{bad}"
        );
    }
    let names = |choice: &MachineChoice, host: &str| choice.names(&id.parse().unwrap(), host);
    assert!(names(&whole, "") && names(&machine("01234567"), "") && names(&machine("DB1"), "db1"));
    assert!(names(&machine("deadbeef"), "deadbeef") && !names(&machine("deadbeef"), "db1"));
    assert!(!names(&machine("db1"), "db11"));
}

#[test]
fn machine_of_takes_names_and_patterns() {
    let all = of("MachineOf=db.service web@*.service\nMachineOf=\"log?.service\"\n", T);
    assert_eq!(shown(&all.machine_of), ["db.service", "log?.service", "web@*.service"]);
    let names: Vec<_> = all.machine_of.iter().map(Glob::literal).collect();
    assert_eq!(names, [Some("db.service"), None, None]);
    // A name is taken as it is, and what a name puts into a pattern is none.
    let escaped = of("MachineOf=%p@?.service a\\x2db.service\n", "c\\x2dd.service").machine_of;
    let matched = |name: &str| escaped.iter().any(|glob| glob.matches(name));
    assert!(matched("c\\x2dd@1.service") && matched("a\\x2db.service") && !matched("ax2db.service"));
    for (line, want) in [
        ("MachineOf=web@[.service", "is not a pattern"),
        ("MachineOf=web@.service", "expected one of its instances, or `web@*.service` for any of them"),
        ("MachineOf=web@*.service\nConflicts=web@*.service", "`web@*.service` has to be on the machine"),
        ("MachineOf=web@1.service\nConflicts=web@*.service", "`web@1.service` has to be on the machine"),
    ] {
        assert!(refusal(&format!("{line}\n")).contains(want), "{line}");
    }
}

#[test]
fn terms_of_one_key_are_alternatives_where_they_are_equalities_and_add_up_otherwise() {
    let all = of(
        "MachineMetadata=zone=a\nMachineMetadata=zone=b\nMachineMetadata=zone!=c\nMachineMetadata=zone in (a, d)\n\
         MachineMetadata=\"os.version>=12\" \"gpu\" !old\n",
        T,
    );
    assert_eq!(
        shown(&all.metadata),
        ["gpu", "!old", "os.version>=12", "zone in (a, b)", "zone in (a, d)", "zone!=c"]
    );
    assert_eq!(
        all.metadata.iter().find(|s| s.key == "os.version").map(|s| s.is.clone()),
        Some(Is::Compare(Comparison::AtLeast, "12".into()))
    );
    // Several terms are quoted one by one, whatever they are.
    for line in ["a>=1 b=2", "gpu !old", "!old !new", "gpu old", "zone in \"a\"", "a=b !c"] {
        let e = refusal(&format!("MachineMetadata={line}\n"));
        assert!(
            e.starts_with("t.service:2:") && e.contains(": MachineMetadata= does not take"),
            "{line}: {e}"
        );
    }
}

#[test]
fn wishes_have_a_weight_and_a_term() {
    let all = of(
        "Prefer=disk=ssd\nPrefer=-50 MachineOf=web@*.service\nPrefer=\"100 zone in (a, b)\" '+5 !old'\nPrefer=Spread=zone\n",
        T,
    );
    assert_eq!(
        shown(&all.prefer),
        ["-50 MachineOf=web@*.service", "5 !old", "10 disk=ssd", "10 Spread=zone", "100 zone in (a, b)"]
    );
    let near = of("Prefer=MachineOf=%p@*.service\n", "c\\x2dd@1.service").prefer;
    assert!(
        near.iter().all(|it| matches!(&it.term, PreferTerm::MachineOf(g) if g.matches("c\\x2dd@2.service")))
    );
    for (value, want) in [
        ("0 disk=ssd", "`0` is no weight; expected -100 to 100 and not 0"),
        ("101 disk=ssd", "`101` is no weight"),
        ("-101 disk=ssd", "`-101` is no weight"),
        ("50", "a term follows the weight"),
        ("disk==ssd", "a value does not begin with `=`"),
        ("10 disk=\"ssd\"", "the quotes go around the whole of it"),
        ("MachineOf=db", "Prefer= expects unit names"),
        ("MachineOf=web@[", "Prefer= expects patterns"),
        ("MachineOf=web@.service", "a template runs nowhere"),
        ("Spread=", "there is no key"),
        ("Spread=a b", "a key has no ' '"),
        ("a=b c=d", "several on one line are quoted one by one"),
    ] {
        let e = refusal(&format!("Prefer={value}\n"));
        assert!(e.starts_with("t.service:2:8: ") && e.contains(want), "{value}: {e}");
    }
}

#[test]
fn spreading_is_for_instances() {
    let all = of("Spread=zone rack\nSpread=host\nMaxPerMachine=2\nPrefer=Spread=disk\n", T);
    assert_eq!(shown(&all.spread), ["host", "rack", "zone"]);
    assert_eq!(all.max_per_machine, Some(2));
    for line in ["Spread=zone", "MaxPerMachine=1", "Prefer=Spread=zone"] {
        let text = format!("[Service]\n[X-Flotilla]\n{line}\n");
        let file = UnitFile::parse("t", text.as_bytes()).unwrap();
        assert!(file.validate(&"web@.service".parse().unwrap()).is_ok(), "{line}");
        let e = file.validate(&"web.service".parse().unwrap()).unwrap_err().to_string();
        assert!(e.starts_with("t:3:") && e.contains("and web.service is none; a template is named"), "{e}");
        let shared = file.requirements().unwrap();
        assert!(shared.for_unit(&"web@1.service".parse().unwrap()).is_ok());
        let e = shared.for_unit(&"web.service".parse().unwrap()).unwrap_err().to_string();
        assert!(e.contains("about the instances of a template"), "{e}");
    }
    for bad in ["0", "-1", "+1", "1.5", "many", "4294967296"] {
        assert!(refusal(&format!("MaxPerMachine={bad}\n")).contains("a whole number from 1"), "{bad}");
    }
}

#[test]
fn reservations_are_read_and_win_over_what_systemd_limits() {
    let of_service = |lines: &str| {
        let text = format!("[Service]\nCPUQuota=50%\nMemoryMax=1G\n[X-Flotilla]\n{lines}");
        let file = UnitFile::parse("t", text.as_bytes()).unwrap();
        file.requirements().unwrap().for_unit(&T.parse().unwrap()).unwrap().reserve.clone()
    };
    let cpu_and_memory = |lines: &str| (of_service(lines).cpu_milli, of_service(lines).memory_bytes);
    assert_eq!(cpu_and_memory(""), (500, 1 << 30));
    assert_eq!(cpu_and_memory("ReserveCPU=1.5\n"), (1500, 1 << 30));
    assert_eq!(cpu_and_memory("ReserveCPU=12.5%%\nReserveMemory=1G 512M\n"), (125, 3 << 29));
    assert_eq!(cpu_and_memory("ReserveCPU=150%\n"), (1500, 1 << 30));
    assert_eq!(cpu_and_memory("ReserveCPU=0\nReserveMemory=0\n"), (0, 0));
    // The last one holds, and an empty one leaves the default.
    assert_eq!(cpu_and_memory("ReserveCPU=1\nReserveCPU=2\n"), (2000, 1 << 30));
    assert_eq!(cpu_and_memory("ReserveCPU=1\nReserveCPU=\n"), (500, 1 << 30));

    let all =
        of("Reserve=gpu=1 \"licence=3\"\nReserve=gpu=1\nReservePort=80 443\nReservePort=8000-8002\n", T)
            .reserve;
    assert_eq!(all.named, [("gpu".to_owned(), 1), ("licence".to_owned(), 3)].into());
    assert_eq!(all.ports, [80, 443, 8000, 8001, 8002].into());
    for (line, want) in [
        ("ReserveCPU=-1", "expected processors"),
        ("ReserveCPU=1.2345", "in steps of a thousandth"),
        ("ReserveCPU=150.55%", "in steps of a thousandth"),
        ("ReserveCPU=many", "expected processors"),
        ("ReserveMemory=50%%", "expected a size"),
        ("ReserveMemory=infinity", "expected a size"),
        ("ReserveMemory=512MB", "expected a size"),
        ("Reserve=gpu", "expected NAME=N"),
        ("Reserve=gpu=0", "expected NAME=N"),
        ("Reserve=gpu=-1", "expected NAME=N"),
        ("Reserve==1", "expected NAME=N"),
        ("Reserve=cpu=1", "expected ReserveCPU= for `cpu`"),
        ("Reserve=memory=1", "expected ReserveMemory= for `memory`"),
        ("Reserve=gpu=1 gpu=2", "another number of `gpu` stands above"),
        ("ReservePort=0", "a port from 1 to 65535"),
        ("ReservePort=65536", "a port from 1 to 65535"),
        ("ReservePort=http", "a port from 1 to 65535"),
        ("ReservePort=90-80", "a port from 1 to 65535"),
        ("ReservePort=80-", "a port from 1 to 65535"),
        ("ReservePort=80,443", "a port from 1 to 65535"),
        ("ReservePort=1-65535", "more than 1024 ports"),
        ("ReservePort=1-1024 2000", "more than 1024 ports"),
    ] {
        let e = refusal(&format!("{line}\n"));
        assert!(e.starts_with("t.service:2:") && e.contains(want), "{line}: {e}");
    }
}

#[test]
fn numbers_of_a_template_wait_for_its_instances() {
    let text = "[Service]\n[X-Flotilla]\nReservePort=80%i\nPreempt=yes\n";
    let file = UnitFile::parse("t", text.as_bytes()).unwrap();
    let written = file.validate(&"web@.service".parse().unwrap()).unwrap();
    let ports = |unit: &str| written.for_unit(&unit.parse().unwrap()).map(|it| it.reserve.ports.clone());
    assert_eq!(ports("web@01.service").unwrap(), [8001].into());
    assert!(ports("web@a.service").unwrap_err().to_string().contains("a port from 1 to 65535"));
}

#[test]
fn stickiness_priority_and_preemption() {
    let all = of("Sticky=yes\nPriority=-1000\nPreempt=on\nReservePort=80\n", T);
    assert!(all.sticky && all.preempt && all.priority == -1000);
    assert_eq!(of("Priority=1000\n", T).priority, 1000);
    for bad in ["1001", "-1001", "high", "1.5", "--1", ""] {
        let e = read(&format!("Priority={bad}\n")).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(e.is_err(), !bad.is_empty(), "{bad}");
    }
    let e = refusal("Priority=5\nPreempt=yes\n");
    assert!(e.starts_with("t.service:3:9: Preempt= has no meaning here: it makes room for"), "{e}");
    assert!(of("Preempt=no\n", T) == UnitRequirements::default());
    // What systemd limits is a reservation too.
    let limited = UnitFile::parse("t", b"[Service]\nMemoryMax=1M\n[X-Flotilla]\nPreempt=yes\n").unwrap();
    assert!(limited.requirements().is_ok());
}

#[test]
fn a_global_unit_has_nothing_to_choose() {
    for line in ["Prefer=disk=ssd", "Spread=zone", "MaxPerMachine=1", "Sticky=yes"] {
        for both in [format!("Global=yes\n{line}\n"), format!("{line}\nGlobal=yes\n")] {
            let e = refusal(&both);
            assert!(e.starts_with("t.service:3:") && e.contains("contradict each other"), "{e}");
        }
        assert!(read(&format!("Global=no\n{line}\n")).is_ok(), "{line}");
    }
    for line in ["Reserve=gpu=1", "ReservePort=80", "Priority=5", "Reserve=a=1\nPreempt=yes"] {
        assert!(read(&format!("Global=yes\n{line}\n")).is_ok(), "{line}");
    }
}

#[test]
fn of_the_spellings_of_a_machine_the_newest_counts() {
    let machine = |lines: &str| shown(of(lines, T).machine);
    let (new, old, older) = (
        "MachineID=new\n",
        "X-ConditionMachineID=old\n",
        "X-ConditionMachineBootID=0f0e0d0c-0b0a-0908-0706-050403020100\n",
    );
    assert_eq!(machine(&format!("{older}{old}{new}")), ["new"]);
    assert_eq!(machine(&format!("{old}{older}")), ["old"]);
    assert_eq!(machine(older), ["0f0e0d0c0b0a09080706050403020100"]);
}
