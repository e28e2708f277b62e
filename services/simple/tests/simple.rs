//! The example service over a bus in memory.

use commissaire::{BusOptions, Client, ErrorKind, RpcError, connect};
use commissaire_simple::{Add, Sum, WordyAdd, service};

#[tokio::test]
async fn it_adds_and_says_so() {
    let bus = connect(&"memory://".parse().unwrap(), &BusOptions::default(), commissaire_transports::ALL)
        .await
        .unwrap();
    let _running = service().start(bus.clone()).await.unwrap();
    let client = Client::new(bus);
    assert_eq!(client.call(Add, &Sum { x: 2, y: 3 }).await.unwrap(), 5);
    assert_eq!(client.call(WordyAdd, &Sum { x: 2, y: 3 }).await.unwrap(), "2 + 3 = 5");
    let overflow = client.call(WordyAdd, &Sum { x: i64::MAX, y: 1 }).await.unwrap_err();
    assert!(
        matches!(overflow.kind(), ErrorKind::Remote(error) if error.code == RpcError::INVALID_PARAMS),
        "{overflow}"
    );
}
