//! `flotctl journal` and its options, on lines whose text, time and priority are known.

use flotilla_api::journal::JournalLine;

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 1] = [("journal", journal)];

/// Says a line of each of five priorities, then what it is given to say.
const TALKER: &str = r#"echo "<3>grave $1"; echo "<4>odd $1"; echo "<5>notable $1"; echo "plain $1"; echo "<7>petty $1"
while true; do read -r line </run/say-$1 && echo "$line"; done
"#;

/// What every colour begins with.
const ESCAPE: char = '\u{1b}';

fn journal(world: &World) {
    begin(world);
    lines(world);
    formats(world);
    since(world);
    followed(world);
    world.ask(&["destroy", "talk@*.service"]);
}

/// Two units that have said what they had to say.
fn begin(world: &World) {
    world.machine().write_file("/root/talk.sh", TALKER).unwrap();
    let path = world.write("talk@.service", "[Service]\nExecStart=/bin/sh /root/talk.sh %i\n");
    world.machine().run(&["mkfifo", "/run/say-1", "/run/say-2"]).unwrap();
    world.ask(&["submit", &path]);
    world.ask(&["start", "talk@1", "talk@2"]);
    for unit in ["talk@1", "talk@2"] {
        world.eventually_journal(&[unit], "petty");
    }
}

/// A unit's own lines.
fn lines_of(world: &World, options: &[&str]) -> Vec<JournalLine> {
    let text = world.ask(&[&["journal", "talk@1", "--output=json"], options].concat());
    let lines = text.lines().map(|line| serde_json::from_str::<JournalLine>(line).unwrap());
    lines.filter(|line| line.identifier.as_deref() == Some("sh")).collect()
}

/// What they say.
fn said(world: &World, options: &[&str]) -> Vec<String> {
    lines_of(world, options).into_iter().map(|line| line.message).collect()
}

/// Which lines: by priority, expression and number.
fn lines(world: &World) {
    let all = ["grave 1", "odd 1", "notable 1", "plain 1", "petty 1"];
    assert_eq!(said(world, &[]), all);
    for (priority, count) in [("err", 1), ("warning", 2), ("5", 3), ("info", 4), ("debug", 5)] {
        assert_eq!(said(world, &["--priority", priority]), all[..count], "{priority}");
    }
    assert_eq!(said(world, &["--grep", "^(odd|plain)"]), ["odd 1", "plain 1"]);
    assert_eq!(said(world, &["--grep=a", "-p", "notice"]), ["grave 1", "notable 1"]);
    assert_eq!(said(world, &["-n", "1", "--priority=warning"]), ["odd 1"]);
    world.expect(2, &["journal", "talk@1", "--priority=loud"]).complains(&["`loud` is not a priority"]);
    assert!(said(world, &["--grep=nobody said this"]).is_empty());
    world
        .expect(1, &["journal", "-f", "talk@1", "--grep=("])
        .complains(&["pattern to search for", "parenthesis"]);
    world.expect(2, &["journal"]).complains(&["Usage: flotctl journal"]);
}

/// How they look: whose line it is, and colours on a terminal only.
fn formats(world: &World) {
    let merged = world.ask(&["journal", "talk@?.service", "--hold=100ms", "--grep=plain"]);
    for n in [1, 2] {
        let line = merged.lines().find(|line| line.contains(&format!("talk@{n}.service/m1: plain {n}")));
        assert!(line.is_some(), "each line says whose it is: {merged}");
    }
    assert!(!merged.contains(ESCAPE), "{merged:?}");
    let words = ["journal", "talk@1", "--priority=warning"];
    let coloured = world.on_terminal("", &words);
    assert_eq!(coloured.code, Some(0), "{coloured:?}");
    let red = coloured.out.lines().find(|line| line.contains("grave 1")).unwrap();
    let yellow = coloured.out.lines().find(|line| line.contains("odd 1")).unwrap();
    assert!(red.contains("31m"), "{red:?}");
    assert!(yellow.contains("33m"), "{yellow:?}");
    let plain = world.on_terminal("NO_COLOR=1", &words);
    assert!(plain.out.contains("grave 1") && !plain.out.contains(ESCAPE), "{plain:?}");
    let table = world.on_terminal("", &["list-units", "--no-legend"]);
    assert!(table.out.contains(ESCAPE), "{table:?}");
    let table = world.on_terminal("NO_COLOR=1", &["list-units", "--no-legend"]);
    assert!(table.out.contains("active") && !table.out.contains(ESCAPE), "{table:?}");
}

/// Only what was said since a time.
fn since(world: &World) {
    // The clock has moved on by then, and this is what it says then.
    let now = world.machine().run(&["date", "+%Y-%m-%d %H:%M:%S.%N"]).unwrap();
    world.machine().shell("echo 'said later' >/run/say-1").unwrap();
    world.eventually_journal(&["talk@1"], "said later");
    assert_eq!(said(world, &["--since", now.trim()]), ["said later"]);
    // journald gives lines that it takes at once the same time, to the microsecond.
    let lines = lines_of(world, &[]);
    let begin = lines.iter().find(|line| line.message == "petty 1").unwrap().realtime_us;
    let later: Vec<_> = lines.iter().filter(|line| line.realtime_us >= begin).collect();
    let stamp = std::time::UNIX_EPOCH + std::time::Duration::from_micros(begin);
    let stamp = jiff::Timestamp::try_from(stamp).unwrap().to_string();
    assert_eq!(lines_of(world, &["-S", &stamp]).iter().collect::<Vec<_>>(), later);
    assert_eq!(said(world, &["--since=1 hour ago"]).len(), 6);
    assert_eq!(said(world, &["--this-run"]).len(), 6);
    world.machine().shell("echo 'and more' >/run/say-1").unwrap();
    world.eventually_journal(&["talk@1"], "and more");
    assert_eq!(said(world, &["--lines", "2"]), ["said later", "and more"]);
    assert_eq!(said(world, &["--lines=1", "--grep=grave"]), ["grave 1"]);
    assert_eq!(said(world, &["-n", "2", "--grep=(odd|plain|petty)"]), ["plain 1", "petty 1"]);
    world.expect(2, &["journal", "talk@1", "--since=soon"]).complains(&["`soon` is not a time"]);
}

/// What is said meanwhile comes, merged, until nobody wants it any more.
fn followed(world: &World) {
    let mut matching = world.follow(&["journal", "-f", "-n2", "--grep=(odd|plain|word)", "talk@1"]);
    for part in ["odd 1", "plain 1"] {
        has("a follower", &matching.line().unwrap(), &[part]);
    }
    let mut follower = world.follow(&["journal", "-f", "--lines=1", "--hold", "50ms", "talk@*"]);
    // The last line that there is tells that it follows.
    has("a follower", &follower.line().unwrap(), &["talk@1.service/m1: and more"]);
    world.machine().shell("echo 'first words' >/run/say-2").unwrap();
    has("a follower", &follower.line().unwrap(), &["talk@2.service/m1: first words"]);
    world.machine().shell("echo '<3>second words' >/run/say-1").unwrap();
    has("a follower", &follower.line().unwrap(), &["talk@1.service/m1: second words"]);
    has("a follower", &matching.line().unwrap(), &["second words"]);
    assert!(follower.goes_on().unwrap() && matching.goes_on().unwrap());
}
