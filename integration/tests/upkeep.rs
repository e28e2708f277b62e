//! What a program holds does not grow with what it has done.

use std::{sync::Arc, time::Duration};

use commissaire::{
    Address, Bus, Client, Connection, Error, ErrorKind, Key, Message, Source,
    testkit::{Cut, Proxy},
};
use commissaire_integration::{
    Failure, Holdings, Kind, Outcome, PATIENCE, Site, alone, by_itself, each_bus, ensure, join, left_out,
    long, until, within,
};
use futures_util::{StreamExt, TryStreamExt, stream};

each_bus!(calls_that_nobody_answers_leave_nothing_behind);

mod reconnects {
    use super::{Kind, Outcome};

    commissaire_integration::each_server!(reconnects_leave_nothing_behind);

    async fn reconnects_leave_nothing_behind(kind: Kind) -> Outcome {
        super::reconnects_leave_nothing_behind(kind).await
    }
}

/// How much a process may grow.
const GROWTH_KIB: u64 = 10 * 1024;

/// Fails if `now` is more than `before`; tasks that are about to end are waited for.
async fn nothing_grew(before: Holdings) -> Outcome {
    let mut now = Holdings::now()?;
    let waited = until("as few files and tasks as before", PATIENCE, async || {
        now = Holdings::now().unwrap_or(now);
        now.descriptors <= before.descriptors && now.tasks <= before.tasks
    })
    .await;
    println!("before {before:?}\nafter  {now:?}");
    waited.map_err(|failure| failure.in_step(format!("{before:?} became {now:?}")))?;
    let most = before.resident_kib + GROWTH_KIB;
    ensure!(now.resident_kib <= most, "it grew: {before:?} became {now:?}");
    Ok(())
}

/// Calls so often, with `at_once` of them under way; each must end with an error that `is` the right one.
async fn call(
    client: &Client,
    method: &str,
    calls: usize,
    at_once: usize,
    is: impl Fn(&Error) -> bool + Copy,
) -> Outcome {
    let method = Key::new(method)?;
    stream::iter(0..calls)
        .map(|_| {
            let (client, method) = (client.clone(), method.clone());
            async move {
                match within("a call", PATIENCE, client.call_raw(method, None)).await? {
                    Err(error) if is(&error) => Ok(()),
                    other => Err(Failure::new(format!("a call that nobody answers ended with {other:?}"))),
                }
            }
        })
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

async fn calls_that_nobody_answers_leave_nothing_behind(kind: Kind) -> Outcome {
    let _machine = alone().await;
    let calls = long("calls that nobody answers", 10_000, 1_000_000);
    let module = format!("{kind:?}").to_lowercase();
    let name = format!("upkeep::{module}::calls_that_nobody_answers_leave_nothing_behind");
    by_itself(&name, PATIENCE * 60, async {
        let site = Site::alone(kind).await?;
        let (bus, silent) = (site.join().await?, site.join().await?);
        let mut requests = silent.subscribe(Source::Service(Key::new("silent")?), 1_024).await?;
        let silence = tokio::spawn(async move {
            while let Some(request) = requests.next_delivery().await {
                request.ack().await?;
            }
            Outcome::Ok(())
        });
        let client = Client::new(bus.clone());
        let impatient = client.clone().with_timeout(Duration::from_millis(100));
        let both = async |calls: usize| {
            let nobody = |error: &Error| *error.kind() == ErrorKind::NoResponders;
            call(&client, "nobody.there", calls / 2, 64, nobody).await?;
            // On a busy machine the time may be over before it is sent, which some transports tell otherwise, and calls
            // that are over may wait for the service.
            let late = |error: &Error| match error.kind() {
                ErrorKind::Timeout => true,
                ErrorKind::Busy | ErrorKind::Unavailable => !error.may_have_executed(),
                _ => false,
            };
            call(&impatient, "silent.method", calls / 2, 256, late).await
        };
        // By then it has the buffers that it works with.
        both(calls / 5).await?;
        let before = Holdings::now()?;
        both(calls).await?;
        nothing_grew(before).await?;
        silent.close().await?;
        within("the silent service", PATIENCE, silence).await???;
        Ok(bus.close().await?)
    })
    .await
}

/// A program of the test: a bus with a queue that it reads, and calls.
struct Reader {
    bus: Arc<dyn Bus>,
    client: Client,
    queue: commissaire::Subscription,
}

impl Reader {
    async fn start(uri: &str, number: usize) -> Outcome<Self> {
        let bus = join(uri).await?;
        let queue = bus.subscribe(Source::Queue(Self::jobs(number)?), 16).await?;
        let client = Client::new(bus.clone());
        let mut reader = Self { bus, client, queue };
        reader.works(number).await?;
        Ok(reader)
    }

    fn jobs(number: usize) -> Outcome<Key> {
        Ok(Key::new(format!("jobs.reader{number}"))?)
    }

    /// Leaves a job for itself and takes it out, and asks where nobody answers.
    async fn works(&mut self, number: usize) -> Outcome {
        let message = Message::new(Address::Queue(Self::jobs(number)?), "1")?;
        while let Err(error) = within("a publish", PATIENCE, self.bus.publish(message.clone())).await? {
            ensure!(error.is_temporary(), "{error:?}");
        }
        let delivery = within("the job", PATIENCE, self.queue.next_delivery()).await?;
        delivery.ok_or_else(|| Failure::new("the subscription ended"))?.ack().await?;
        let answer =
            within("a call", PATIENCE, self.client.call_raw(Key::new("nobody.there")?, None)).await?;
        ensure!(answer.is_err(), "{answer:?}");
        Ok(())
    }
}

async fn reconnects_leave_nothing_behind(kind: Kind) -> Outcome {
    if kind == Kind::Amqp && left_out("amqp::reconnects_leave_nothing_behind") {
        return Ok(());
    }
    let _machine = alone().await;
    let (programs, rounds) = long("programs that reconnect, and how often", (10, 5), (50, 200));
    let module = format!("{kind:?}").to_lowercase();
    let name = format!("upkeep::reconnects::{module}::reconnects_leave_nothing_behind");
    by_itself(&name, PATIENCE * 120, async {
        let mut site = Site::alone(kind).await?;
        let uri = site.broker.uri();
        let proxy = Proxy::to(site.broker.server()?.port()).await?;
        let uri = proxy.uri(&uri)?;
        let mut readers = Vec::new();
        for number in 0..programs {
            readers.push(Reader::start(&uri, number).await?);
        }
        let connections = proxy.connected();
        let mut before = None;
        for round in 0..rounds {
            // By then each has the buffers that it works with.
            if round == rounds / 5 + 1 {
                before = Some(Holdings::now()?);
            }
            let cut = if round % 2 == 0 { Cut::Reset } else { Cut::Finish };
            ensure!(proxy.cut(cut) > 0, "there was nothing to cut");
            let what = format!("every connection is back after cut {round}");
            until(what, PATIENCE, async || {
                let up = readers.iter().all(|reader| reader.bus.connection().now() == Connection::Up);
                up && proxy.connected() == connections
            })
            .await?;
            let works = readers.iter_mut().enumerate().map(|(number, reader)| reader.works(number));
            futures_util::future::try_join_all(works).await?;
        }
        nothing_grew(before.ok_or_else(|| Failure::new("too few rounds"))?).await?;
        for reader in readers {
            reader.bus.close().await?;
        }
        Ok(())
    })
    .await
}
