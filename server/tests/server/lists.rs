//! Lists in pages.

use flotilla_api::{error::ErrorKind, page::ListQuery};

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
