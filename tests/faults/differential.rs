//! Random programs find what breaks the contract, and nothing where nothing does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use commissaire::{
    Bus, Token,
    testkit::{ChaosBus, Differential, Failure, Fault, Outcome, Target, differential},
};

/// What it says when something came that was not to come, or not so often.
const MORE: &[&str] = &["were to come", "too", "twice", "where"];
/// What it says when something did not come.
const LESS: &[&str] = &["nothing came of", "dead are", "was to be heard", "in the end the model says"];

/// Each fault that shows in programs, and what the failure may say: which of several shows first is open.
const FAULTS: &[(Fault, &[&str])] = &[
    (Fault::Mixes, &["did not send so", "too", "were to come"]),
    (Fault::Loses, LESS),
    (Fault::Doubles, MORE),
    // What comes in another order meets other fates.
    (Fault::Reorders, &["behind", "nothing came of", "dead are", "was to be heard", "were to come"]),
    (Fault::Garbles, &["did not send so"]),
    (Fault::Cuts, &["did not send so"]),
    (Fault::Strips, &["came with number None"]),
    (Fault::Demands, &["no_responders"]),
    (Fault::Overhears, MORE),
    (Fault::Copies, MORE),
    (Fault::Remembers, MORE),
    (Fault::Forgets, &["nothing came of", "where"]),
    (Fault::Clings, &["nothing came of", "too", "where"]),
    (Fault::Folds, &["which was sent to", "too", "were to come", "nothing came of"]),
    (Fault::Grasps, &["were in hand already"]),
    (Fault::Denies, MORE),
    (Fault::Swallows, LESS),
    (Fault::Acquits, &["for the runs"]),
    (Fault::Hurries, &["too early"]),
    (Fault::Buries, &["redrives: no end", "dead are"]),
    (Fault::Stays, &["a closed bus gave", "nothing came of"]),
];

#[test]
fn on_a_bus_that_keeps_the_contract_programs_come_to_what_the_model_says() {
    differential(async || Ok::<_, Failure>(Target::in_process(commissaire_memory::DRIVER, "memory://")));
}

#[test]
fn a_fault_is_found() {
    let todo = Mutex::new(FAULTS.iter());
    let wrong = Mutex::new(Vec::new());
    // Each has many programs under way: all of them at once would starve each other beyond their patience.
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                while let Some((fault, says)) = { todo.lock().unwrap().next() } {
                    let text = find(*fault, Duration::ZERO).err().map(|failure| failure.to_string());
                    if !text.as_ref().is_some_and(|text| says.iter().any(|says| text.contains(says))) {
                        wrong.lock().unwrap().push(format!("{fault:?}, {says:?}: {text:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_fails_is_told_by_a_short_program() {
    let told = find(Fault::Acquits, Duration::from_secs(20)).unwrap_err().to_string();
    let steps = told.lines().filter(|line| line.starts_with("    ")).count();
    assert!((1..=3).contains(&steps), "{told}");
}

fn find(fault: Fault, shrinking: Duration) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let programs = Differential { programs: 300, shrinking, ..Differential::default() };
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
            drop(owners);
            let uri = format!("unix://{socket}").parse()?;
            let bus = (commissaire_memory::UNIX_DRIVER.connect)(uri, options).await?;
            Ok(Arc::new(ChaosBus::new(bus, fault)) as Arc<dyn Bus>)
        })
    });
    target.patience(Duration::from_secs(3))
}
