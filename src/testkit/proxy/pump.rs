//! Bytes on one way through a proxy.

use std::{io, sync::atomic::Ordering, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{Line, Shared, Traffic, Way};

/// Bytes on their way, and when they may arrive.
type Chunk = (Instant, Vec<u8>);

/// Moves bytes on one way until the sender has finished.
pub(super) async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    line: &Line,
    way: Way,
    seed: u64,
) -> io::Result<()> {
    // Bounded, as the buffers of a network are: who sends faster than that waits.
    let (taken, given) = mpsc::channel(64);
    let taking = take(from, taken, shared.way(way).subscribe(), seed);
    tokio::try_join!(taking, give(to, given, shared, line, way))?;
    Ok(())
}

async fn take(
    from: &mut OwnedReadHalf,
    taken: mpsc::Sender<Chunk>,
    mut traffic: watch::Receiver<Traffic>,
    seed: u64,
) -> io::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *traffic.borrow_and_update();
        if now.stalled {
            // The sender of the watch lives as long as the proxy.
            let _ = traffic.changed().await;
            continue;
        }
        let most = now.slice.unwrap_or(buffer.len()).clamp(1, buffer.len());
        let most = now.rate.map_or(most, |rate| most.min((rate as usize / 10).max(1)));
        let read = tokio::select! {
            _ = traffic.changed() => continue,
            read = from.read(&mut buffer[..most]) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        let mut bytes = buffer[..read].to_vec();
        if let Some(mean) = now.flip {
            for byte in &mut bytes {
                if random.random_range(0..mean.max(1)) == 0 {
                    *byte ^= 1 << random.random_range(0..8_u8);
                }
            }
        }
        if taken.send((Instant::now() + now.delay, bytes)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    to: &mut OwnedWriteHalf,
    mut given: mpsc::Receiver<Chunk>,
    shared: &Shared,
    line: &Line,
    way: Way,
) -> io::Result<()> {
    let mut traffic = shared.way(way).subscribe();
    while let Some((due, mut bytes)) = given.recv().await {
        sleep_until(due).await;
        // What was read before a stall waits for its end.
        while traffic.borrow_and_update().stalled {
            let _ = traffic.changed().await;
        }
        let cut = line.meet(&mut bytes, shared);
        to.write_all(&bytes).await?;
        if let Some(how) = cut {
            line.cut.send_replace(Some(how));
            return std::future::pending().await;
        }
        shared.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let rate = traffic.borrow().rate;
        if let Some(rate) = rate {
            sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate.max(1)))).await;
        }
    }
    to.shutdown().await
}
