//! When hosts may be begun: `Mon-Fri 22:00-04:00`, in UTC.

use jiff::{Zoned, civil::Time, tz::TimeZone};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A part of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// On which days it begins, from Monday.
    days: [bool; 7],
    from: Time,
    /// Not after `from`: on the day after.
    to: Time,
}

impl Window {
    /// `DAYS FROM-TO`, or `FROM-TO` for every day. Days are `Mon`, `Mon-Fri`, `Sat,Sun`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let odd =
            || format!("{text:?} is no window: `Mon-Fri 22:00-04:00`, `Sat,Sun 00:00-24:00`, `22:00-04:00`");
        let (days, times) = text.trim().rsplit_once(' ').unwrap_or(("Mon-Sun", text.trim()));
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        let mut on = [false; 7];
        for part in days.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first).ok_or_else(odd)?, day(last).ok_or_else(odd)?);
            let mut at = first;
            on[at] = true;
            while at != last {
                at = (at + 1) % 7;
                on[at] = true;
            }
        }
        let (from, to) = times.split_once('-').ok_or_else(odd)?;
        let time = |text: &str| -> Option<Time> {
            let (hour, minute) = text.split_once(':')?;
            match (hour.parse().ok()?, minute.parse().ok()?) {
                (24, 0) => Some(Time::midnight()),
                (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
            }
        };
        Ok(Self { days: on, from: time(from).ok_or_else(odd)?, to: time(to).ok_or_else(odd)? })
    }

    /// Whether it is open at this moment.
    fn is_open(&self, at: &Zoned) -> bool {
        let day = usize::try_from(at.weekday().to_monday_zero_offset()).unwrap_or_default();
        let yesterday = (day + 6) % 7;
        let time = at.time();
        if self.from < self.to {
            return self.days[day] && time >= self.from && time < self.to;
        }
        (self.days[day] && time >= self.from) || (self.days[yesterday] && time < self.to)
    }
}

/// Whether one of the windows is open now, or there are none.
pub(crate) fn are_open(windows: &[String]) -> bool {
    let now = Zoned::now().with_time_zone(TimeZone::UTC);
    windows.is_empty()
        || windows.iter().any(|text| Window::read(text).is_ok_and(|window| window.is_open(&now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_on_their_days_and_over_midnight() {
        let open = |window: &str, at: &str| {
            let at = at.parse::<jiff::civil::DateTime>().unwrap().to_zoned(TimeZone::UTC).unwrap();
            Window::read(window).unwrap().is_open(&at)
        };
        // 2026-11-23 is a Monday.
        for (window, at, is) in [
            ("Mon-Fri 22:00-04:00", "2026-11-23T22:00", true),
            ("Mon-Fri 22:00-04:00", "2026-11-23T21:59", false),
            ("Mon-Fri 22:00-04:00", "2026-11-24T03:59", true),
            ("Mon-Fri 22:00-04:00", "2026-11-23T03:59", false),
            ("Mon-Fri 22:00-04:00", "2026-11-28T03:59", true),
            ("Mon-Fri 22:00-04:00", "2026-11-28T22:30", false),
            ("sat,sun 00:00-24:00", "2026-11-29T23:59", true),
            ("sat,sun 00:00-24:00", "2026-11-30T00:00", false),
            ("Fri-Mon 10:00-11:00", "2026-11-23T10:30", true),
            ("Fri-Mon 10:00-11:00", "2026-11-24T10:30", false),
            ("09:00-17:00", "2026-11-29T09:00", true),
            ("09:00-17:00", "2026-11-29T17:00", false),
        ] {
            assert_eq!(open(window, at), is, "{window} at {at}");
        }
        for text in ["", "Mon", "Mon 9-17", "Foo 09:00-10:00", "Mon 25:00-26:00", "Mon 09:00"] {
            assert!(Window::read(text).is_err(), "{text}");
        }
    }
}
