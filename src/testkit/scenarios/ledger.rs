//! The ledger beside the queue: who may begin, and what was done.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::try_join_all;

use crate::{
    address::Origin,
    bus::Bus,
    ledger::{Begun, Ledger},
    message::MessageId,
    testkit::{
        Outcome, Stage,
        target::{key, token},
        until,
        wait::{Failure, ensure, within},
    },
};

const LONG: Duration = Duration::from_secs(60);

fn place() -> Origin {
    Origin::Queue(key("jobs.once"))
}

fn ledger(bus: &Arc<dyn Bus>) -> Outcome<Arc<dyn Ledger>> {
    bus.ledger().ok_or_else(|| Failure::new("the ledger that is promised is not there"))
}

async fn begins(ledger: &Arc<dyn Ledger>, id: MessageId, holder: u128, wanted: Begun) -> Outcome {
    let begun = within("asking the ledger", LONG, ledger.begin(&place(), id, holder, LONG)).await??;
    ensure!(begun == wanted, "holder {holder} was told {begun:?} where it is {wanted:?}");
    Ok(())
}

pub(crate) async fn the_ledger_is_where_it_is_promised(stage: Arc<Stage>) -> Outcome {
    let bus = stage.bus().await?;
    let (promised, there) = (bus.guarantees().shared_ledger, bus.ledger().is_some());
    ensure!(promised == there, "a ledger is promised: {promised}; it is there: {there}");
    Ok(())
}

pub(crate) async fn a_ledger_lets_one_holder_begin(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (ledger(&stage.bus().await?)?, ledger(&stage.bus().await?)?);
    for _ in 0..10 {
        let id = MessageId::new();
        let asking = (0..20_u128).map(|holder| {
            let ledger = if holder % 2 == 0 { &here } else { &there };
            async move { ledger.begin(&place(), id, holder, LONG).await.map(|begun| (holder, begun)) }
        });
        let begun = within("asking the ledger", stage.patience(), try_join_all(asking)).await??;
        let told: BTreeSet<u128> =
            begun.iter().filter(|(_, begun)| *begun == Begun::Fresh).map(|(holder, _)| *holder).collect();
        ensure!(told.len() == 1, "of 20 who asked the ledger let begin {told:?}");
        ensure!(begun.iter().all(|(_, begun)| *begun != Begun::Done), "what nobody did is done");
        let first = told.first().copied().unwrap_or_default();
        // The same holder may begin again; nobody else may, nor end it.
        begins(&there, id, first, Begun::Fresh).await?;
        here.end(&place(), id, first + 100, Some(LONG)).await?;
        here.end(&place(), id, first + 100, None).await?;
        begins(&here, id, first + 100, Begun::Running).await?;
        // Another place, another id: another matter.
        let other = Origin::Durable(token("once"));
        let elsewhere = here.begin(&other, id, first + 100, LONG).await?;
        ensure!(elsewhere == Begun::Fresh, "the same id at another place is {elsewhere:?}");
        begins(&here, MessageId::new(), first + 100, Begun::Fresh).await?;
        // Given up, it is free.
        there.end(&place(), id, first, None).await?;
        begins(&here, id, first + 100, Begun::Fresh).await?;
    }
    // A holder that is silent for its lease has lost it.
    let id = MessageId::new();
    const LEASE: Duration = Duration::from_millis(300);
    let begun = here.begin(&place(), id, 1, LEASE).await?;
    ensure!(begun == Begun::Fresh, "a new id is {begun:?}");
    begins(&there, id, 2, Begun::Running).await?;
    tokio::time::sleep(LEASE).await;
    until("a lease lapses", stage.patience(), async || {
        matches!(there.begin(&place(), id, 2, LONG).await, Ok(Begun::Fresh))
    })
    .await?;
    here.end(&place(), id, 1, Some(LONG)).await?;
    begins(&here, id, 1, Begun::Running).await
}

pub(crate) async fn a_ledger_knows_what_was_done(stage: Arc<Stage>) -> Outcome {
    let (here, there) = (ledger(&stage.bus().await?)?, ledger(&stage.bus().await?)?);
    let ids: Vec<MessageId> = (0..200).map(|_| MessageId::new()).collect();
    for (holder, id) in ids.iter().enumerate() {
        begins(&here, *id, holder as u128, Begun::Fresh).await?;
        within("telling the ledger", LONG, here.end(&place(), *id, holder as u128, Some(LONG))).await??;
    }
    for (holder, id) in ids.iter().enumerate() {
        begins(&there, *id, 1_000, Begun::Done).await?;
        begins(&here, *id, holder as u128, Begun::Done).await?;
        // Who comes late changes nothing.
        there.end(&place(), *id, 1_000, None).await?;
        begins(&there, *id, 1_000, Begun::Done).await?;
    }
    Ok(())
}
