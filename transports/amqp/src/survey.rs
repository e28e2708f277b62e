//! What the broker tells of this bus.

use std::sync::Arc;

use commissaire::{
    Key, Origin, Result, Token,
    survey::{Declared, Survey, What},
};
use tokio::time::Instant;

use crate::{
    bus::{BOUND, Core},
    durable::idle,
    registry::{Entered, now},
    topology,
    wire::Fault,
};

/// Looks at everything that the registry lists.
pub(crate) async fn survey(core: &Arc<Core>, place: &str) -> Result<Survey> {
    let what = "surveying the bus";
    let deadline = Instant::now() + BOUND;
    let look = look(core, place, deadline);
    let surveyed = tokio::time::timeout_at(deadline, look).await.unwrap_or(Err(Fault::Late));
    // Nothing is changed by it, so nothing is unknown about that.
    surveyed.map_err(|fault| match fault {
        Fault::Late => commissaire::Error::timeout(what, BOUND),
        fault => fault.into_error(what),
    })
}

async fn look(core: &Arc<Core>, place: &str, deadline: Instant) -> Result<Survey, Fault> {
    core.registry.enter_and_read(Entered::Mark, deadline).await?;
    let up = core.consuming.until(deadline).await.ok_or(Fault::NotSent)?;
    let view = core.registry.view(Clone::clone);
    let mut declared = Vec::new();
    let keys = |names: &std::collections::BTreeSet<String>| -> Vec<Key> {
        names.iter().filter_map(|name| Key::new(name).ok()).collect()
    };
    for key in keys(&view.services) {
        let queue = core.names.service(&key);
        declared.push((queue, Declared::new(What::Service(key))));
    }
    for key in keys(&view.queues) {
        declared.push((core.names.stored(&Origin::Queue(key.clone())), Declared::new(What::Queue(key))));
    }
    for (name, durable) in view.durables.iter().filter(|(_, durable)| durable.removed.is_none()) {
        let Ok(name) = Token::new(name) else { continue };
        let queue = core.names.stored(&Origin::Durable(name.clone()));
        let mut one = Declared::new(What::Durable(name));
        one.patterns = Some(durable.patterns.clone());
        one.idle = Some(idle(now(), durable.seen));
        one.expires_after = Some(durable.expires);
        declared.push((queue, one));
    }
    for (kind, name) in &view.dead {
        let origin = match kind.as_str() {
            "queue" => Key::new(name).map(Origin::Queue),
            _ => Token::new(name).map(Origin::Durable),
        };
        let Ok(origin) = origin else { continue };
        declared.push((core.names.dead_of(&origin), Declared::new(What::dead(&origin))));
    }
    let mut survey = Survey { broker: format!("{} at {place}", up.connection.broker()), ..Survey::default() };
    let blocked = core.publishing.now().and_then(|up| up.connection.blocked().borrow().clone());
    survey.faults.extend(
        blocked.map(|why| format!("the broker takes no messages for now: {why}: free what it lacks")),
    );
    for (queue, mut one) in declared {
        let Some((messages, consumers)) = topology::look(&up.connection, &queue.name).await? else {
            // A service's queue goes with its last instance; all else should be there.
            if !matches!(one.what, What::Service(_)) {
                let what = &one.what;
                survey.faults.push(format!(
                    "{what} was deleted at the broker: its next publisher or reader makes it again"
                ));
            }
            continue;
        };
        one.waiting = Some(u64::from(messages));
        one.consumers = Some(u64::from(consumers));
        if consumers > 0 && one.idle.is_some() {
            one.idle = Some(std::time::Duration::ZERO);
        }
        survey.declared.push(one);
    }
    survey.declared.sort_by_key(|one| one.what.to_string());
    let unknown = [
        "messages in hand, messages that rest until their retry, and the age of the oldest: RabbitMQ tells them only to its own tools (rabbitmqctl list_queues)",
        "whether a consumer is deaf: RabbitMQ counts consumers and does not tell what they do",
        "what was declared by programs that the registry has forgotten: it keeps some 64 MiB",
    ];
    survey.unknown.extend(unknown.map(str::to_owned));
    Ok(survey)
}
