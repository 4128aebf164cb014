//! What becomes of a request while there is no seat: it waits for one, for a moment.

use axum::http::{HeaderMap, Method};
use flotilla_api::{
    FORWARDED,
    client::{Client, ClientError},
    error::ErrorKind,
    page::{ListQuery, Page},
    unit::Unit,
};
use tokio::{task::JoinHandle, time::timeout};

use crate::world::{LIMIT, World};

type Answer = Result<Page<Unit>, ClientError>;

/// Asks for a list, and makes sure that the server has the question before anything else happens.
async fn ask(world: &World) -> JoinHandle<Answer> {
    let client = world.client.clone();
    let asked = tokio::spawn(async move { client.units(&ListQuery::default()).await });
    // Its answer comes after that of whatever was asked before it.
    world.client.version().await.unwrap();
    assert!(!asked.is_finished(), "nobody can have answered");
    asked
}

async fn get(client: &Client, path: &str, hops: Option<&str>) -> (u16, String) {
    let mut headers = HeaderMap::new();
    if let Some(hops) = hops {
        headers.insert(FORWARDED, hops.parse().unwrap());
    }
    let answer = client.forward(Method::GET, path, headers, "").await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_request_waits_for_a_seat_that_is_about_to_be() {
    let world = World::new().await;
    let reader = world.seat.send_replace(None);
    let asked = ask(&world).await;
    world.seat.send_replace(reader.clone());
    let page = timeout(LIMIT, asked).await.unwrap().unwrap().unwrap();
    assert!(page.items.is_empty());

    // Also one that was passed on to it.
    world.seat.send_replace(None);
    let passed_on = {
        let client = world.client.clone();
        tokio::spawn(async move { get(&client, "/v1/units", Some("1")).await })
    };
    world.client.version().await.unwrap();
    world.seat.send_replace(reader);
    assert_eq!(timeout(LIMIT, passed_on).await.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn a_request_goes_to_a_seat_that_another_machine_takes_meanwhile() {
    let world = World::new().await;
    world.seat.send_replace(None);
    let asked = ask(&world).await;
    let _other = World::of(2, world.store.clone()).await;
    // Without certificates the other does not believe that a machine asks for its user.
    let refused = timeout(LIMIT, asked).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::Forbidden), "{refused}");
}

#[tokio::test]
async fn what_another_seat_answers_comes_with_its_length() {
    let world = World::new().await;
    world.seat.send_replace(None);
    let other = World::of(2, world.store.clone()).await;
    // It refuses, as it does not believe that a machine asks for its user.
    let answer = world.client.forward(Method::GET, "/v1/units", HeaderMap::new(), "").await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.text().await.unwrap();
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (403, &*body.len().to_string()));
    assert!(!body.is_empty() && !headers.contains_key("transfer-encoding"), "{headers:?}");
    drop(other);
}

#[tokio::test]
async fn without_a_seat_it_is_said_so_in_the_end() {
    let world = World::new().await;
    assert_eq!(get(&world.client, "/readyz", None).await, (200, "ready\n".to_owned()));
    world.seat.send_replace(None);
    let (status, said) = get(&world.client, "/readyz", None).await;
    assert_eq!((status, said.as_str()), (503, "engine: neither it nor any other has a seat yet\n"));
    let refused = timeout(LIMIT, ask(&world).await).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::Unavailable), "{refused}");
    assert!(refused.to_string().contains("no engine has a seat"), "{refused}");
    // What other machines have is enough: this one is a daemon like most.
    let other = World::of(2, world.store.clone()).await;
    assert_eq!(get(&world.client, "/readyz", None).await.0, 200);
    drop(other);
}
