//! How an operation goes over the hosts: what is asked for over what is configured, and how many may be begun.

use commissaire_api::clusterexec::Options;
use serde_json::{Map, Value};

use crate::window::Window;

/// What is `asked` for, over what is `configured`; or what is wrong with it.
pub(crate) fn over(configured: &Options, asked: Option<&Map<String, Value>>) -> Result<Options, String> {
    let mut all = serde_json::to_value(configured).map_err(|e| e.to_string())?;
    for (name, value) in asked.into_iter().flatten() {
        match (&mut all[name], value) {
            // Of gates and drains single members may be said.
            (Value::Object(there), Value::Object(said)) => there.extend(said.clone()),
            (there, said) => *there = said.clone(),
        }
    }
    let options: Options = serde_json::from_value(all).map_err(|e| e.to_string())?;
    check(&options)?;
    Ok(options)
}

/// What is wrong with them, if anything is.
pub(crate) fn check(options: &Options) -> Result<(), String> {
    for window in &options.windows {
        Window::read(window)?;
    }
    if options.reboot_seconds == 0 || options.step_seconds == 0 || options.gates.seconds == 0 {
        return Err("reboot_seconds, step_seconds and gates.seconds are 1 at least".to_owned());
    }
    Ok(())
}

/// How many of `all` hosts may be at work when `done` are.
pub(crate) fn places(options: &Options, all: usize, done: usize) -> usize {
    let most = options.max_concurrent.of(all).max(1);
    let mut before = 0;
    for step in &options.ramp {
        let step = step.of(all).max(1);
        before += step;
        if done < before {
            // Those of a step are begun when all of the steps before are done.
            return step.min(most).min(before - done);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use commissaire_api::clusterexec::{Amount, OnFailure};
    use serde_json::json;

    use super::*;

    fn asked(options: &Value) -> Result<Options, String> {
        over(&Options::default(), options.as_object())
    }

    #[test]
    fn what_is_asked_for_goes_over_what_is_configured() {
        let options =
            asked(&json!({"max_concurrent": "25%", "on_failure": "stop", "gates": {"units": ["a"]}}))
                .unwrap();
        assert_eq!((options.max_concurrent, options.on_failure), (Amount::Percent(25), OnFailure::Stop));
        assert_eq!((options.gates.units.len(), options.gates.seconds), (1, Options::default().gates.seconds));
        for (wrong, told) in [
            (json!({"max_concurent": 3}), "max_concurent"),
            (json!({"max_concurrent": "a few"}), "Amount"),
            (json!({"max_failed": "120%"}), "Amount"),
            (json!({"windows": ["sometimes"]}), "sometimes"),
            (json!({"reboot_seconds": 0}), "reboot_seconds"),
        ] {
            let why = asked(&wrong).unwrap_err();
            assert!(why.contains(told), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_ramp_widens_the_window_step_by_step() {
        let options = asked(&json!({"ramp": [1, 5, "25%"], "max_concurrent": 8})).unwrap();
        let at = |done| places(&options, 40, done);
        assert_eq!([at(0), at(1), at(2), at(6), at(9), at(15), at(16), at(39)], [1, 5, 4, 8, 7, 1, 8, 8]);
        let plain = asked(&json!({"max_concurrent": "1%"})).unwrap();
        assert_eq!(places(&plain, 30, 0), 1, "one at least");
    }
}
