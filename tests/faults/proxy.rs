//! The proxy does what it says.

use std::{net::Ipv4Addr, time::Duration};

use commissaire::testkit::{Cut, Mishap, Proxy, Traffic, Way, until, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    Proxy::seeded(port, 7).await.unwrap()
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()
}

/// What comes back of `bytes`.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    within("the echo", PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    back
}

/// Whether nothing comes for a while.
async fn silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn it_lets_bytes_pass_whole_or_in_slices() {
    let proxy = echo().await;
    let mut stream = dial(&proxy).await;
    let bytes: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    assert_eq!(exchange(&mut stream, &bytes).await, bytes);
    proxy.set(Traffic { slice: Some(1), ..Traffic::default() });
    assert_eq!(exchange(&mut stream, &bytes[..2_000]).await, &bytes[..2_000]);
    assert_eq!((proxy.dialled(), proxy.connected()), (1, 1));
}

#[tokio::test]
async fn a_stall_holds_one_way_or_both_and_loses_nothing() {
    let proxy = echo().await;
    let mut stream = dial(&proxy).await;
    for way in [Way::In, Way::Out] {
        assert_eq!(exchange(&mut stream, b"before").await, b"before");
        proxy.set_way(way, Traffic { stalled: true, ..Traffic::default() });
        stream.write_all(b"held").await.unwrap();
        assert!(silent(&mut stream).await);
        proxy.set_way(way, Traffic::default());
        let mut back = [0; 4];
        within("what was held", PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"held");
    }
}

#[tokio::test]
async fn a_reset_is_an_error_and_a_finish_an_end() {
    let proxy = echo().await;
    for (how, ended) in [(Cut::Reset, false), (Cut::Finish, true)] {
        let mut stream = dial(&proxy).await;
        exchange(&mut stream, b"there").await;
        assert_eq!(proxy.cut(how), 1);
        let read = within("the cut", PATIENCE, stream.read_u8()).await.unwrap();
        let kind = read.unwrap_err().kind();
        assert_eq!(kind == std::io::ErrorKind::UnexpectedEof, ended, "{how:?} gave {kind:?}");
        until("it counts none", PATIENCE, async || proxy.connected() == 0).await.unwrap();
    }
    assert_eq!(proxy.cut(Cut::Reset), 0);
}

#[tokio::test]
async fn a_mishap_happens_once_in_the_middle_of_what_is_said() {
    let proxy = echo().await;
    let mut stream = dial(&proxy).await;
    exchange(&mut stream, b"there").await;
    assert_eq!(proxy.after(3, Some(Mishap::Flip)), 1);
    assert_eq!(exchange(&mut stream, &[0; 9]).await, [0, 0, 0, 1 << 3, 0, 0, 0, 0, 0]);
    assert_eq!((exchange(&mut stream, b"well").await, proxy.met()), (b"well".to_vec(), 1));
    // Nine bytes on the way in, and four of them on the way out.
    proxy.after(9 + 4, Some(Mishap::Cut(Cut::Finish)));
    stream.write_all(b"cut short").await.unwrap();
    let mut rest = Vec::new();
    within("the cut", PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!((rest.as_slice(), proxy.met()), (&b"cut "[..], 2));
}

#[tokio::test]
async fn behind_a_stall_nobody_learns_that_the_other_has_gone() {
    let proxy = echo().await;
    let stream = dial(&proxy).await;
    until("it is through", PATIENCE, async || proxy.connected() == 1).await.unwrap();
    proxy.set_way(Way::In, Traffic { stalled: true, ..Traffic::default() });
    drop(stream);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(proxy.connected(), 1);
    proxy.set_way(Way::In, Traffic::default());
    until("it is gone", PATIENCE, async || proxy.connected() == 0).await.unwrap();
}

#[tokio::test]
async fn it_delays_slows_and_turns_bits() {
    let proxy = echo().await;
    let mut stream = dial(&proxy).await;
    proxy.set_way(Way::In, Traffic { delay: Duration::from_millis(150), ..Traffic::default() });
    let began = std::time::Instant::now();
    // All at one time: a delay is no limit of the rate.
    let bytes = vec![5; 300_000];
    assert_eq!(exchange(&mut stream, &bytes).await, bytes);
    assert!(began.elapsed() >= Duration::from_millis(150));
    proxy.set(Traffic { rate: Some(10_000), ..Traffic::default() });
    let began = std::time::Instant::now();
    exchange(&mut stream, &bytes[..5_000]).await;
    assert!(began.elapsed() >= Duration::from_millis(400));
    proxy.set_way(Way::Out, Traffic::default());
    proxy.set_way(Way::In, Traffic { flip: Some(1_000), ..Traffic::default() });
    let turned = exchange(&mut stream, &bytes[..100_000]).await;
    let changed = turned.iter().filter(|byte| **byte != 5).count();
    assert!((50..200).contains(&changed), "{changed} of 100 were turned");
}

#[tokio::test]
async fn it_refuses_when_told() {
    let proxy = echo().await;
    proxy.refuse(true);
    let mut stream = dial(&proxy).await;
    assert!(within("the refusal", PATIENCE, stream.read_u8()).await.unwrap().is_err());
    proxy.refuse(false);
    let mut stream = dial(&proxy).await;
    assert_eq!(exchange(&mut stream, b"again").await, b"again");
    assert_eq!(proxy.dialled(), 2);
}
