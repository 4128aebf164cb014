use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::MAX_PROBLEMS;

fn file(text: &str) -> UnitFile {
    UnitFile::parse("web.service", text.as_bytes()).unwrap()
}

fn all(text: &str) -> Vec<(String, String, String)> {
    let file = file(text);
    file.assignments().map(|a| (a.section.into(), a.key.into(), a.value.into())).collect()
}

fn values(text: &str) -> Vec<String> {
    all(text).into_iter().map(|(_, _, value)| value).collect()
}

fn problems(name: &str, text: &str) -> Vec<String> {
    let file = UnitFile::parse(name, text.as_bytes()).unwrap();
    let found = file.validate(&name.parse().unwrap());
    found.map_or_else(|p| p.as_slice().iter().map(ToString::to_string).collect(), |_| Vec::new())
}

/// Example 1 of systemd.syntax(7).
#[test]
fn reads_the_example_of_the_manual() {
    let text = "[Section A]\nKeyOne=value 1\nKeyTwo=value 2\n\n# a comment\n\n[Section B]\n\
                Setting=\"something\" \"some thing\" \"...\"\nKeyTwo=value 2 \\\n       value 2 continued\n\n\
                [Section C]\nKeyThree=value 3\\\n# this line is ignored\n; this line is ignored too\n       value 3 continued\n";
    let file = file(text);
    assert_eq!(file.sections().collect::<Vec<_>>(), ["Section A", "Section B", "Section C"]);
    assert_eq!(file.values("Section B", "Setting"), ["\"something\" \"some thing\" \"...\""]);
    // "the backslash is replaced by a space character"; the blanks around it stay.
    assert_eq!(file.last("Section B", "KeyTwo"), Some("value 2         value 2 continued"));
    assert_eq!(file.last("Section C", "KeyThree"), Some("value 3        value 3 continued"));
    assert_eq!(file.text(), text);
}

#[test]
fn sections_merge_and_keys_repeat_and_an_empty_one_resets() {
    let text = "[Service]\nEnvironment=A=1\n[Unit]\nAfter=a\n[Service]\nEnvironment = B=2 \nExecStart=x\nExecStart=\nExecStart=y\n";
    let file = file(text);
    assert_eq!(file.sections().collect::<Vec<_>>(), ["Service", "Unit"]);
    assert_eq!(file.values("Service", "Environment"), ["A=1", "B=2"]);
    assert_eq!(file.values("Service", "ExecStart"), ["y"]);
    assert_eq!(file.last("Service", "ExecStart"), Some("y"));
    let reset = self::file("[Service]\nUser=a\nUser=\n");
    assert_eq!(reset.last("Service", "User"), None);
    assert!(reset.values("Service", "User").is_empty());
    assert_eq!(reset.values("Service", "user"), Vec::<&str>::new(), "names have case");
}

#[test]
fn lines_are_continued_as_systemd_continues_them() {
    // An escaped backslash at the end continues nothing; three do.
    assert_eq!(values("[A]\nx=a\\\\\ny=b"), ["a\\\\", "b"]);
    assert_eq!(values("[A]\nx=a\\\\\\\nb"), ["a\\\\ b"]);
    // An empty line ends a continuation, a comment does not, and blanks before the # do not matter.
    assert_eq!(values("[A]\nx=a\\\n\ny=b"), ["a", "b"]);
    assert_eq!(values("[A]\nx=a\\\n  # no \\\nb"), ["a b"]);
    // A comment is not continued.
    assert_eq!(values("[A]\n# c \\\nx=a"), ["a"]);
    // Not only values: names and headers too.
    assert_eq!(all("[A\\\nB]\nx\\\n=1"), [("A B".into(), "x".into(), "1".into())]);
    // The end of the file ends the last line.
    assert_eq!(values("[A]\nx=a\\"), ["a"]);
    assert_eq!(values("[A]\nx=\\\n\\\n\\\n"), [""]);
}

#[test]
fn line_ends_blanks_and_marks_are_taken_as_systemd_takes_them() {
    for end in ["\n", "\r\n", "\r", "\n\r"] {
        let text = ["\u{feff}[A]", "  x \t=\t 1  ", "", "# c", "y=2 # no comment"].join(end);
        assert_eq!(values(&text), ["1", "2 # no comment"], "{end:?}");
        let file = file(&text);
        assert_eq!(file.assignments().map(|a| (a.line, a.column)).collect::<Vec<_>>(), [(2, 3), (5, 1)]);
    }
    assert_eq!(values("[A]\nx=a=b=c"), ["a=b=c"]);
}

#[test]
fn the_text_is_kept_and_is_the_identity() {
    let text = "\u{feff}; odd\r\n[Service]\r\nExecStart = /bin/true \\\r\n  x\n\n";
    let one = file(text);
    assert_eq!(one.text(), text);
    assert_eq!(one.hash(), ContentHash::of(text.as_bytes()));
    assert_ne!(one.hash(), file(text.trim_end()).hash());
}

#[test]
fn what_is_no_text_is_refused_with_its_place() {
    let e = UnitFile::parse("x.service", b"[Service]\nExecStart=\xff\n").unwrap_err();
    assert_eq!(e.as_slice()[0].place.as_ref().map(|p| (p.line, p.column)), Some((2, 11)));
    assert!(e.to_string().starts_with("x.service:2:11: byte 20 (0xff) is not UTF-8"), "{e}");
    let e = UnitFile::parse("x.service", b"[Service]\nA=\0\n").unwrap_err();
    assert!(e.to_string().starts_with("x.service:2:3: byte 12 is NUL"), "{e}");
    let two_mib = vec![b'\n'; 2 << 20];
    let e = UnitFile::parse("x.service", &two_mib).unwrap_err().to_string();
    assert!(e.contains("has 2097152 bytes, and at most 1048576 are allowed"), "{e}");
    assert!(UnitFile::parse("x.service", &two_mib[..MAX_BYTES]).is_ok());
}

#[test]
fn lines_that_systemd_would_skip_are_told() {
    let text =
        "early=1\nalso=2\n[Service]\nExecStart=/bin/true\nrubbish\n=3\n[broken\nlost=4\n[X-Other]\nours=no\n";
    assert_eq!(values(text), ["/bin/true", "no"]);
    let found = problems("a.service", text);
    let places: Vec<&str> = found.iter().map(|p| p.rsplit_once(": ").unwrap().0).collect();
    assert!(found[0].starts_with("a.service:1:1: this stands before the first section header"), "{found:?}");
    assert_eq!(found.len(), 5, "{places:?}");
    assert!(found[2].starts_with("a.service:5:1: this line has no `=`"), "{found:?}");
    assert!(found[3].starts_with("a.service:6:1: there is no option name"), "{found:?}");
    assert!(found[4].starts_with("a.service:7:1: this is not a section header"), "{found:?}");
}

#[test]
fn sections_have_to_fit_the_type() {
    let ok = "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/true\n[Install]\n[X-Mine]\nany=thing\n";
    assert_eq!(problems("a.service", ok), Vec::<String>::new());
    for (name, text, want) in [
        ("a.service", "[Unit]\n", "a.service: a service unit needs a section [Service], and there is none"),
        ("a.service", "", "needs a section [Service]"),
        ("a.timer", "[Timer]\n[Service]\n", "a.timer:2:1: a timer unit has no section [Service]"),
        ("a.service", "[Service]\n[Servce]\n", "did you mean `[Service]`?"),
        ("a.service", "[Service]\n[X-Flotila]\n", "did you mean `[X-Flotilla]`?"),
        ("a.service", "[Service]\n[x-fleet]\n", "did you mean `[X-Fleet]`?"),
        ("a.service", "[Service]\n[Flotilla]\n", "did you mean `[X-Flotilla]`?"),
        (
            "a.service",
            "[Service]\n[X-Fleet]\n[X-Flotilla]\n",
            "a.service:3:1: [X-Flotilla] and [X-Fleet] are the",
        ),
        ("a.scope", "[Scope]\n", "a.scope: scope units are not made from unit files"),
        ("a.device", "", "systemd.device(5)"),
        ("a.target", "[Target]\n", "a target unit has no section [Target]"),
    ] {
        let found = problems(name, text);
        assert_eq!(found.len(), 1, "{name} {text:?} {found:?}");
        assert!(found[0].contains(want), "{found:?}");
    }
    for (name, text) in [("a.target", "[Unit]\n"), ("a.slice", ""), ("a.mount", "[Mount]\n")] {
        assert_eq!(problems(name, text), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_template_is_checked_as_one_of_its_instances_would_be() {
    let text = "[Service]\n[X-Flotilla]\nMachineOf=web@%i.service\n";
    assert!(problems("side@.service", text).is_empty());
    assert!(problems("side@1.service", text).is_empty());
    assert!(problems("pin@.service", "[Service]\n[X-Fleet]\nMachineID=%i\n").is_empty());
    let clash = problems("side@.service", &format!("{text}Conflicts=web@*.service\n"));
    assert!(clash[0].starts_with("side@.service:3:11: MachineOf= and Conflicts= contradict"), "{clash:?}");
    assert!(problems("side.service", text)[0].contains("a template runs nowhere"));
    let long = format!("{}@.service", "a".repeat(240));
    assert!(problems(&long, text).is_empty());
}

#[test]
fn problems_are_shown_with_their_line() {
    let text = "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nConflict=web@*.service\n\
                \tMachineOf = ok.service \\\n  # why\n  \"bad name.service\"\n\tGlobal = perhaps\n";
    let e = file(text).validate(&"web.service".parse().unwrap()).unwrap_err();
    assert_snapshot!(e.render(), @r#"
    web.service:4:1: [X-Flotilla] has no option `Conflict`; did you mean `Conflicts`?
    4 | Conflict=web@*.service
      | ^
    web.service:7:3: MachineOf= expects unit names: `bad name.service` is not a unit name: character 4 is ' '; allowed are letters, digits and `:-_.\@` (systemd-escape turns others into `\x..`)
    7 |   "bad name.service"
      |   ^
    web.service:8:11: Global= does not take `perhaps`: expected one of 1 yes y true t on, 0 no n false f off
    8 | 	Global = perhaps
      | 	         ^
    "#);
}

#[test]
fn not_more_problems_are_told_than_can_be_read() {
    let text = format!("[Service]\n{}", "rubbish\n".repeat(100_000));
    let e = file(&text).validate(&"web.service".parse().unwrap()).unwrap_err();
    assert_eq!(e.as_slice().len(), MAX_PROBLEMS + 1);
    assert!(e.to_string().ends_with("there are 99950 more problems"));
    // A line as long as the file is cut, and no control character reaches the terminal.
    let long = format!("[Service]\n\u{1b}[31m{}", "x".repeat(500_000));
    let shown = file(&long).validate(&"web.service".parse().unwrap()).unwrap_err().render();
    assert!(shown.len() < 1000 && !shown.contains('\u{1b}'));
}

#[test]
fn a_large_file_is_read_in_time() {
    // Each of these was quadratic in some parser.
    for text in
        ["x\\\n".repeat(300_000), "[A]\n".repeat(200_000), format!("[A]\n{}", "x=1\n".repeat(250_000))]
    {
        assert_eq!(file(&text).text().len(), text.len());
    }
    let sections: String = (0..100_000).map(|n| format!("[{n}]\n")).collect();
    assert_eq!(file(&sections).sections().count(), 100_000);
    let resets = format!(
        "[Service]\n[X-Flotilla]\n{}{}",
        "MachineOf=a.service\n".repeat(200),
        "Global=\n".repeat(90_000)
    );
    assert!(file(&resets).requirements().is_ok());
}

fn line() -> impl Strategy<Value = (String, String)> {
    // What ends in a backslash would be continued; what is only blanks would be a reset.
    ("[A-Za-z][A-Za-z0-9-]{0,9}", "[^\\s\\\\\\x00]([^\\n\\r\\x00\\\\]{0,20}[^\\s\\\\\\x00])?")
}

proptest! {
    #[test]
    fn reading_never_panics_and_keeps_the_text(text in "([\\[\\]=\\\\#; \t\r\na%\"]|X-Flotilla|\\PC){0,80}") {
        let file = file(&text);
        prop_assert_eq!(file.text(), &text);
        prop_assert_eq!(file.hash(), ContentHash::of(text.as_bytes()));
        for a in file.assignments() {
            prop_assert!(a.line >= 1 && a.column >= 1 && !a.key.is_empty());
        }
        let _ = file.requirements();
        for name in ["a.service", "a@.timer", "a@1.socket"] {
            if let Err(e) = file.validate(&name.parse().unwrap()) {
                prop_assert!(!e.render().is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        match UnitFile::parse("a.service", &bytes) {
            Ok(file) => prop_assert_eq!(file.text().as_bytes(), bytes),
            Err(e) => prop_assert!(!e.render().is_empty()),
        }
    }

    #[test]
    fn what_is_written_is_read_however_it_is_laid_out(
        lines in proptest::collection::vec((line(), 0..5_u8), 0..20),
        end in prop_oneof!["\n", "\r\n"],
    ) {
        let mut text = format!("[X-Test]{end}");
        for ((key, value), layout) in &lines {
            text.push_str(&match layout {
                0 => format!("{key}={value}{end}"),
                1 => format!("  {key} \t= {value}  {end}{end}"),
                2 => format!("# c{end}{key}=\\{end}  ; c{end}{value}{end}"),
                3 => format!("[X-Test]{end}{key} \\{end}={value}\\{end}{end}"),
                _ => format!("{key}={value}{end}[Other]{end}{key}=other{end}[X-Test]{end}"),
            });
        }
        // A value that begins like a comment is one, on a line of its own.
        let lost = |v: &str, layout: &u8| *layout == 2 && v.starts_with(['#', ';']);
        prop_assume!(!lines.iter().any(|((_, v), layout)| lost(v, layout)));
        let file = file(&text);
        let got: Vec<_> = file.assignments().filter(|a| a.section == "X-Test").map(|a| (a.key, a.value)).collect();
        let want: Vec<_> = lines.iter().map(|((k, v), _)| (k.as_str(), v.as_str())).collect();
        prop_assert_eq!(got, want);
    }
}

#[test]
fn runs_like_another_when_only_placing_and_enabling_differ() {
    let base = "[Unit]\nDescription=a\n[Service]\nExecStartPre=/bin/b\nExecStartPre=/bin/c\nExecStart=/bin/d \\\n e\n";
    let other = |text: &str| file(base).runs_like(&file(text)) && file(text).runs_like(&file(base));
    for same in [
        base.to_owned(),
        format!("{base}[X-Flotilla]\nConflicts=a*\n"),
        format!("{base}[X-Fleet]\nGlobal=yes\n[Install]\nWantedBy=multi-user.target\n"),
        format!("# a comment\n\n{}", base.replace('\n', "\r\n")),
        format!("[Empty]\n{base}"),
        base.replace("ExecStart=", "  ExecStart =  "),
        base.replace("[Service]\n", "[Service]\n; one more\n"),
        "[Service]\nExecStartPre=/bin/b\nExecStartPre=/bin/c\n[Unit]\nDescription=a\n[Service]\nExecStart=/bin/d   e".to_owned(),
    ] {
        assert!(other(&same), "{same}");
    }
    for different in [
        base.replace("Description=a", "Description=b"),
        base.replace("/bin/c", "/bin/c2"),
        base.replace("ExecStartPre=/bin/b\nExecStartPre=/bin/c", "ExecStartPre=/bin/c\nExecStartPre=/bin/b"),
        base.replace("ExecStartPre=/bin/b\n", ""),
        format!("{base}ExecStartPre=\n"),
        format!("{base}[X-Other]\nA=b\n"),
    ] {
        assert!(!other(&different), "{different}");
    }
}
