//! Random programs find what breaks the contract, and nothing where nothing does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use commissaire::{
    Bus, Token,
    testkit::{ChaosBus, Differential, Failure, Fault, Outcome, Target, differential},
};

/// Each fault that shows in programs, and what the failure must say.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::Mixes, "did not send so"),
    (Fault::Loses, "came to None"),
    (Fault::Doubles, "were to come"),
    (Fault::Reorders, "came"),
    (Fault::Garbles, "did not send so"),
    (Fault::Cuts, "did not send so"),
    (Fault::Strips, "came with number None"),
    (Fault::Demands, "no_responders"),
    (Fault::Overhears, ""),
    (Fault::Copies, ""),
    (Fault::Remembers, ""),
    (Fault::Forgets, ""),
    (Fault::Clings, ""),
    (Fault::Folds, "which was sent to"),
    (Fault::Grasps, "were in hand already"),
    (Fault::Denies, "were to come"),
    (Fault::Swallows, ""),
    (Fault::Acquits, "for the runs"),
    (Fault::Hurries, "too early"),
    (Fault::Buries, "redrives: no end"),
    (Fault::Stays, ""),
];

#[test]
fn on_a_bus_that_keeps_the_contract_programs_come_to_what_the_model_says() {
    differential(async || Ok::<_, Failure>(Target::in_process(commissaire_memory::DRIVER, "memory://")));
}

#[test]
fn a_fault_is_found_and_told_by_a_short_program() {
    let all: Vec<_> = std::thread::scope(|threads| {
        let finding = FAULTS.iter().map(|(fault, says)| (fault, says, threads.spawn(|| find(*fault))));
        let finding: Vec<_> = finding.collect();
        finding.into_iter().map(|(fault, says, found)| (fault, says, found.join().unwrap())).collect()
    });
    let mut wrong = Vec::new();
    for (fault, says, found) in all {
        let text = found.err().map(|failure| failure.to_string());
        eprintln!("{fault:?}: {text:?}");
        // How it shows depends on which of its traces is seen first: mostly as `says`.
        if text.is_none() {
            wrong.push(format!("{fault:?}, {says:?}: not found"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn find(fault: Fault) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let programs = Differential { programs: 300, ..Differential::default() };
    let found = runtime.block_on(programs.run(faulty(fault), 1));
    runtime.shutdown_background();
    found
}

/// A memory bus with a fault, shared through a socket where that is needed to see it.
fn faulty(fault: Fault) -> Target {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let owners: Arc<tokio::sync::Mutex<HashMap<Token, Arc<dyn Bus>>>> = Arc::default();
    let shared = matches!(fault, Fault::Mixes | Fault::Stays);
    let target = Target::new(move |options| {
        let (folder, owners, options) = (folder.clone(), owners.clone(), fault.options(options));
        Box::pin(async move {
            let mut owners = owners.lock().await;
            let socket = folder.path().join(options.exchange.as_str()).display().to_string();
            if !owners.contains_key(&options.exchange) {
                let uri = if shared { format!("memory://?listen={socket}") } else { "memory://".into() };
                let owner = (commissaire_memory::DRIVER.connect)(uri.parse()?, options.clone()).await?;
                owners.insert(options.exchange.clone(), Arc::new(ChaosBus::new(owner, fault)));
            }
            if !shared {
                return Ok(owners[&options.exchange].clone());
            }
            let uri = format!("unix://{socket}").parse()?;
            let bus = (commissaire_memory::UNIX_DRIVER.connect)(uri, options).await?;
            Ok(Arc::new(ChaosBus::new(bus, fault)) as Arc<dyn Bus>)
        })
    });
    target.patience(Duration::from_millis(800))
}
