//! Lists in pages.

use flotilla_api::{
    action::{Action, Order, Submit, SubmitUnit},
    error::ErrorKind,
    page::ListQuery,
};

use crate::world::{World, id};

#[tokio::test]
async fn machines_come_in_pages_and_no_machine_twice() {
    let world = World::new().await;
    for n in 1..=5 {
        world.register(n).await;
    }
    world.see_machines(5).await;
    let page = async |pattern: Option<&str>, from: Option<String>, limit| {
        let query = ListQuery { pattern: pattern.map(str::to_owned), from, limit };
        let page = world.client.machines(&query).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|machine| machine.id).collect();
        (ids, page.next)
    };
    let ids = |of: &[u8]| of.iter().map(|n| id(*n)).collect::<Vec<_>>();
    assert_eq!(page(None, None, None).await, (ids(&[1, 2, 3, 4, 5]), None));
    let (first, next) = page(None, None, Some(2)).await;
    assert_eq!(first, ids(&[1, 2]));
    let (second, next) = page(None, next, Some(2)).await;
    assert_eq!(second, ids(&[3, 4]));
    assert_eq!(page(None, next, Some(2)).await, (ids(&[5]), None));
    // Only what is listed counts.
    let (first, next) = page(Some("m[135]"), None, Some(2)).await;
    assert_eq!(first, ids(&[1, 3]));
    assert_eq!(page(Some("m[135]"), next, Some(2)).await, (ids(&[5]), None));
    assert_eq!(page(Some("m[12]"), None, Some(2)).await, (ids(&[1, 2]), None));

    let query = ListQuery { from: Some("m1".to_owned()), ..ListQuery::default() };
    let refused = world.client.machines(&query).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
}

/// Gives the cluster these units, wanted nowhere.
async fn submit(world: &World, names: &[&str]) {
    let unit = |name: &&str| SubmitUnit {
        name: (*name).to_owned(),
        text: "[Service]\nExecStart=/bin/true\n".to_owned(),
    };
    let submit = Submit { units: names.iter().map(unit).collect(), ..Submit::default() };
    world.client.submit(&submit).await.unwrap();
}

#[tokio::test]
async fn a_comma_in_a_class_divides_no_pattern() {
    let world = World::new().await;
    submit(&world, &["web1.service", "web2.service", "web3.service", "db.service"]).await;
    let list = async |pattern: &str| {
        let query = ListQuery { pattern: Some(pattern.to_owned()), ..ListQuery::default() };
        let page = world.client.units(&query).await.unwrap();
        page.items.iter().map(|unit| unit.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("web[1,2]*").await, "web1.service web2.service");
    assert_eq!(list("web[1,2]*, db*").await, "db.service web1.service web2.service");
}

#[tokio::test]
async fn a_pattern_restarts_nothing_that_rests() {
    let world = World::new().await;
    submit(&world, &["a.service", "b.service", "loaded.service"]).await;
    let order = async |action, words: &[&str]| {
        let units = words.iter().map(|word| (*word).to_owned()).collect();
        let outcome = world.client.order(&Order { action, units, dry_run: false }).await?;
        let names: Vec<String> = outcome.units.iter().map(|unit| unit.unit.to_string()).collect();
        Ok::<_, flotilla_api::client::ClientError>(names.join(" "))
    };
    let refused = order(Action::Restart, &["*"]).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");
    assert!(refused.to_string().contains("no unit that is wanted on a machine matches *"), "{refused}");
    order(Action::Start, &["a"]).await.unwrap();
    order(Action::Load, &["loaded"]).await.unwrap();
    assert_eq!(order(Action::Restart, &["*"]).await.unwrap(), "a.service loaded.service");
    let both = order(Action::Restart, &["a", "a*"]).await.unwrap();
    assert_eq!(both, "a.service", "a pattern that matches what is named already matches something");
    // Who names it means it, as systemctl does.
    assert_eq!(order(Action::Restart, &["b"]).await.unwrap(), "b.service");
}
