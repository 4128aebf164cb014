//! What the streams say first, what they lack, and how they end.

use flotilla_api::{
    client::ClientError,
    error::ErrorKind,
    journal::{JournalEvent, JournalLine, JournalQuery},
    watch::{EventsQuery, WatchQuery},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::world::{LIMIT, World, id, name, query};

#[tokio::test]
async fn a_machine_has_a_position_before_it_has_a_line_and_nothing_is_lost_behind_it() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    world.journal.write("other.service", "somebody else's");
    for lines in [0, 10] {
        let follow = query("a*", true, Some(lines));
        let mut stream = world.journal(&follow, None).await;
        let position = stream.position().await;
        drop(stream);
        for n in 0..30 {
            world.journal.write("a.service", &n.to_string());
        }
        // More than the newest ten came while nobody was connected.
        let mut stream = world.journal(&follow, Some(&position)).await;
        for n in 0..30 {
            assert_eq!(stream.line().await.message, n.to_string());
        }
        world.journal.write("other.service", "somebody else's");
        world.journal.write("a.service", "the next");
        assert_eq!(stream.line().await.message, "the next");
        // The others' lines are between the newest ones and what follows them.
        world.journal.0.send_replace(Vec::new());
        world.journal.write("other.service", "somebody else's");
    }
    (0..15).for_each(|n| world.journal.write("a.service", &n.to_string()));
    world.journal.write("other.service", "somebody else's");
    let mut stream = world.journal(&query("a.service", true, Some(10)), None).await;
    for n in 5..15 {
        assert_eq!(stream.line().await.message, n.to_string());
    }
    world.journal.write("a.service", "15");
    let next = stream.next().await.unwrap();
    let next =
        if matches!(next, Some(JournalEvent::Position(_))) { stream.next().await.unwrap() } else { next };
    assert!(matches!(next, Some(JournalEvent::Line(line)) if line.message == "15"));
}

#[tokio::test]
async fn a_journal_says_what_it_lacks() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.unit("b.service", Some(2)).await;
    world.unit("c.service", None).await;
    world.journal.write("b.service", "not on this machine");

    let refused = world.client.journal(&query("nobody", false, None), None).await.err().unwrap();
    assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");

    let mut stream = world.journal(&query("c", false, None), None).await;
    let notice = stream.notice().await;
    assert!(notice.machine.is_none() && notice.reason.contains("c.service is on no machine"), "{notice:?}");
    assert_eq!(stream.next().await.unwrap(), None);

    let mut stream = world.journal(&query("x*", true, None), None).await;
    assert!(stream.notice().await.reason.contains("x*"));

    for follow in [false, true] {
        let mut stream = world.journal(&query("b", follow, None), None).await;
        let notice = stream.notice().await;
        assert_eq!((notice.host.as_deref(), notice.machine), (Some("m2"), Some(id(2).to_string())));
        assert!(notice.reason.contains("serves no API"), "{}", notice.reason);
        if !follow {
            assert_eq!(stream.next().await.unwrap(), None);
        }
    }
}

/// A machine's API that says these lines to whoever asks for its journal.
async fn says(lines: Vec<JournalLine>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lines = lines.iter().map(|line| format!("data: {}\n\n", serde_json::to_string(line).unwrap()));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let answer = head.to_owned() + &lines.collect::<String>();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_machine_speaks_for_itself_only_and_its_cursors_are_not_believed_blindly() {
    let world = World::new().await;
    let line = |unit: &str, message: &str, cursor: &str| JournalLine {
        unit: unit.to_owned(),
        host: "m1".to_owned(),
        machine: id(1).to_string(),
        realtime_us: 1,
        priority: None,
        pid: None,
        identifier: None,
        message: message.to_owned(),
        invocation: None,
        cursor: cursor.to_owned(),
    };
    for (n, cursor) in [(2, "s=a;i=2\nid: s=b".to_owned()), (3, format!("s=a;i=2,{}~s=b", id(1)))] {
        let unit = format!("u{n}.service");
        let api = says(vec![line(&unit, "first", "s=a;i=1"), line(&unit, "second", &cursor)]).await;
        world.register_at(n, Some(api)).await;
        world.unit(&unit, Some(n)).await;
        let mut stream = world.journal(&query(&unit, false, None), None).await;
        let heard = stream.line().await;
        let whose = (heard.message.as_str(), heard.host, heard.machine);
        assert_eq!(whose, ("first", format!("m{n}"), id(n).to_string()));
        let notice = stream.notice().await;
        assert!(notice.machine == Some(id(n).to_string()) && notice.reason.contains("cursor"), "{notice:?}");
        assert_eq!(stream.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_pattern_that_cannot_be_understood_ends_the_journal() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    for follow in [false, true] {
        let query = JournalQuery { grep: Some("(".to_owned()), ..query("a", follow, None) };
        let refused = world.journal(&query, None).await.next().await.unwrap_err();
        assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
    }
}

#[tokio::test]
async fn events_come_all_however_many_come_at_once() {
    let world = World::new().await;
    let follow = EventsQuery { follow: true, lines: Some(0), ..EventsQuery::default() };
    let mut stream = world.client.events(&follow, None).await.unwrap();
    // More than a page, before the reader takes the first.
    let count = 1_100;
    for n in 0..count {
        world.event(n).await;
    }
    for n in 0..count {
        let event = timeout(LIMIT, stream.next()).await.unwrap_or_else(|_| panic!("no event {n}"));
        assert_eq!(event.unwrap().unwrap().data.unit, Some(name(&format!("u{n}.service"))));
    }
    let last = stream.last_id().unwrap().to_owned();
    drop(stream);
    world.event(count).await;
    let mut stream = world.client.events(&follow, Some(&last)).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.unit, Some(name(&format!("u{count}.service"))));
}

#[tokio::test]
async fn streams_end_when_the_seat_is_lost_although_nothing_changes() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    let mut watch = world.client.watch(&WatchQuery::default(), None).await.unwrap();
    let events = EventsQuery { follow: true, lines: Some(0), ..EventsQuery::default() };
    let mut events = world.client.events(&events, None).await.unwrap();
    let mut journal = world.journal(&query("a", true, Some(0)), None).await;
    world.journal.write("other.service", "a line, so that there is a place in the journal");
    // A seat that is lost and taken again is another one, even if nobody saw that there was none.
    let other = World::new().await;
    world.seat.send_replace(other.engine.reader());
    let given_up =
        |e: &ClientError| e.kind() == Some(ErrorKind::Unavailable) && e.to_string().contains("its seat");
    let end = async {
        loop {
            match watch.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a quiet end"),
                Err(e) => return e,
            }
        }
    };
    let e = timeout(LIMIT, end).await.unwrap();
    assert!(given_up(&e), "{e}");
    let e = timeout(LIMIT, events.next()).await.unwrap().unwrap_err();
    assert!(given_up(&e), "{e}");
    let e = loop {
        match journal.next().await {
            Ok(Some(JournalEvent::Position(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(e) => break e,
        }
    };
    assert!(given_up(&e), "{e}");
}
