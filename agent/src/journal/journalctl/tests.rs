use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::journal::LogMessage;

/// A journalctl of our own: a shell script that sees the arguments.
fn scripted(directory: &tempfile::TempDir, script: &str) -> Journalctl {
    let program = directory.path().join("journalctl");
    fs::write(&program, format!("#!/bin/sh\ndir={}\n{script}", directory.path().display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let known = ["a.service", "b.service", "b@1.service", "b@2.service"].map(|unit| unit.parse().unwrap());
    Journalctl::of(program.display().to_string(), None, Known::remember(known))
}

fn query(units: &[&str]) -> Query {
    let units = units.iter().map(|unit| unit.parse().unwrap()).collect();
    Query { units, follow: true, ..Query::default() }
}

/// Prints lines `$1` to `$2`, each with a cursor of its number.
const LINES: &str = r#"
lines() {
  i=$1
  while [ $i -le $2 ]; do
    printf '{"__CURSOR":"s=a;i=%x;t=1","__REALTIME_TIMESTAMP":"%d","_SYSTEMD_UNIT":"a.service","MESSAGE":"%d"}\n' $i $i $i
    i=$((i+1))
  done
}
from() { for a; do case $a in --after-cursor=s=a\;i=*) a=${a#*i=}; echo $((0x${a%%;*})); return;; esac; done; echo 0; }
"#;

fn text(entry: Result<LogEntry, JournalError>) -> String {
    entry.unwrap().message.to_text().into_owned()
}

#[tokio::test]
async fn a_child_that_dies_is_replaced_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    // Gives 10 lines and half of the next, and dies by a signal.
    let script =
        format!("{LINES}\nf=$(from \"$@\"); lines $((f+1)) $((f+10)); printf '{{\"__CURS'; kill -9 $$");
    let lines: Vec<_> =
        scripted(&dir, &script).follow(query(&["a.service"])).take(95).map(text).collect().await;
    let expected: Vec<_> = (1..=95).map(|n: u32| n.to_string()).collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn what_the_asker_has_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{LINES}\nlines 1 20\nexec sleep 60");
    let mut query = query(&["a.service", "b.service"]);
    query.cursors.insert("a.service".parse().unwrap(), Cursor("s=a;i=f;t=1".to_owned()));
    let lines: Vec<_> = scripted(&dir, &script).follow(query).take(5).map(text).collect().await;
    assert_eq!(lines, ["16", "17", "18", "19", "20"]);
}

#[tokio::test]
async fn without_follow_the_stream_ends() {
    let dir = tempfile::tempdir().unwrap();
    let query = Query { follow: false, ..query(&["a.service"]) };
    let journal = scripted(&dir, &format!("{LINES}\nlines 1 3"));
    assert_eq!(journal.follow(query).map(text).collect::<Vec<_>>().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_child_that_only_fails_is_given_up_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let journal = scripted(&dir, "echo first >&2; echo 'no such option' >&2; exit 1");
    let all: Vec<_> = journal.follow(query(&["a.service"])).collect().await;
    assert_eq!(all.len(), 1);
    let failed = all.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(failed.contains("no such option") && failed.contains("exit status: 1"), "{failed}");
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_told_and_the_next_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{LINES}\nlines 1 1; echo '{{\"__CURSOR\":7}}'; lines 2 2; exec sleep 60");
    let got: Vec<_> = scripted(&dir, &script).follow(query(&["a.service"])).take(3).collect().await;
    assert!(matches!(&got[1], Err(JournalError::Unreadable { .. })));
    assert_eq!(got[2].as_ref().unwrap().message, LogMessage::Text("2".to_owned()));
}

#[tokio::test]
async fn patterns_take_units_that_come_later_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "{LINES}\nlines 1 4 | sed '2s/a.service/b@1.service/;4s/a.service/b@2.service/'; exec sleep 60"
    );
    let query = Query { units: Vec::new(), globs: vec!["b@*".parse().unwrap()], ..query(&[]) };
    let got: Vec<_> = scripted(&dir, &script).follow(query).take(2).map(text).collect().await;
    assert_eq!(got, ["2", "4"]);
}

#[tokio::test]
async fn an_end_of_the_stream_ends_the_child_and_readers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let journal = scripted(&dir, &format!("{LINES}\necho $$ > $dir/pid; lines 1 1; exec sleep 60"));
    let mut stream = journal.follow(query(&["a.service"]));
    stream.next().await.unwrap().unwrap();
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    drop(stream);
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    timeout(Duration::from_secs(10), async {
        while alive() || journal.readers.available_permits() < READERS {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let _all = journal.readers.clone().try_acquire_many_owned(u32::try_from(READERS).unwrap()).unwrap();
    let refused = journal.follow(query(&["a.service"])).next().await.unwrap();
    assert!(matches!(refused, Err(JournalError::TooMany { limit: READERS })));
    assert!(matches!(journal.follow(query(&[])).next().await.unwrap(), Err(JournalError::NoUnit)));
}

#[tokio::test]
async fn a_pattern_that_nothing_matches_is_an_answer_and_a_bad_one_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let query = Query { follow: false, grep: Some("x".to_owned()), ..query(&["a.service"]) };
    let nothing = scripted(&dir, "echo >>$dir/calls; exit 1");
    assert!(nothing.follow(query.clone()).next().await.is_none());
    assert_eq!(fs::read_to_string(dir.path().join("calls")).unwrap().lines().count(), 1);
    let bad = scripted(
        &dir,
        "echo >>$dir/calls; echo 'Bad pattern \"(\": missing closing parenthesis' >&2; exit 1",
    );
    let said = bad.follow(query.clone()).next().await.unwrap().unwrap_err();
    assert!(matches!(&said, JournalError::Pattern { said } if said.contains("parenthesis")), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("calls")).unwrap().lines().count(), 2);
    let many = Query { lines: Some(MATCHES + 1), ..query };
    assert!(matches!(nothing.follow(many).next().await.unwrap(), Err(JournalError::TooManyMatches { .. })));
}

#[tokio::test]
async fn the_last_lines_that_match_come_in_the_journals_order() {
    let dir = tempfile::tempdir().unwrap();
    // As journalctl does with both --grep and --lines: newest first. The first child dies on the way.
    let script = format!(
        "{LINES}\nif [ -e $dir/once ]; then for n in 9 7 5; do lines $n $n; done; \
         else touch $dir/once; lines 9 9; kill -9 $$; fi"
    );
    let query = Query { follow: false, grep: Some("x".to_owned()), lines: Some(3), ..query(&["a.service"]) };
    let lines: Vec<_> = scripted(&dir, &script).follow(query).map(text).collect().await;
    assert_eq!(lines, ["5", "7", "9"]);
}

#[tokio::test]
async fn the_end_of_the_journal_is_its_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let end = scripted(&dir, &format!("{LINES}\nlines 7 7")).end().await.unwrap();
    assert_eq!(end, Some(Cursor("s=a;i=7;t=1".to_owned())));
    assert_eq!(scripted(&dir, "exit 0").end().await.unwrap(), None);
    let failed = scripted(&dir, "echo no >&2; exit 1").end().await.unwrap_err();
    assert!(failed.to_string().contains("no"), "{failed}");
}

#[tokio::test]
async fn the_machines_own_units_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("{LINES}\nlines 1 4 | sed '2s/a.service/ssh.service/;3s/a.service/dbus.service/'");
    let query = Query { follow: false, globs: vec!["*".parse().unwrap()], ..query(&["ssh.service"]) };
    let journal = scripted(&dir, &script);
    assert_eq!(journal.follow(query.clone()).map(text).collect::<Vec<_>>().await, ["1", "4"]);
    journal.known.came(&"dbus.service".parse().unwrap());
    assert_eq!(journal.follow(query).map(text).collect::<Vec<_>>().await, ["1", "3", "4"]);
}

#[tokio::test]
async fn a_user_who_may_read_no_journal_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let said = "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1";
    let journal = scripted(&dir, said);
    assert!(matches!(journal.end().await.unwrap_err(), JournalError::MayNotRead));
    let all: Vec<_> = journal.follow(query(&["a.service"])).collect().await;
    assert!(matches!(all[..], [Err(JournalError::MayNotRead)]));
}

#[tokio::test]
async fn last_lines_that_match_are_refused_when_they_cannot_be_held() {
    let dir = tempfile::tempdir().unwrap();
    // Ten lines of four million bytes, newest first.
    let script = r#"
for i in a 9 8 7 6 5 4 3 2 1; do
  printf '{"__CURSOR":"s=a;i=%s;t=1","__REALTIME_TIMESTAMP":"1","_SYSTEMD_UNIT":"a.service","MESSAGE":"' $i
  head -c 4000000 /dev/zero | tr '\0' x
  printf '"}\n'
done"#;
    let grep = Some("x".to_owned());
    let query = Query { follow: false, lines: Some(10), grep, ..query(&["a.service"]) };
    let all: Vec<_> = scripted(&dir, script).follow(query).collect().await;
    assert!(matches!(all.as_slice(), [Err(JournalError::TooMuch)]), "{} lines", all.len());
}
