//! Files that lines go to, and when a new one is begun.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use jiff::{
    Timestamp, ToSpan, Zoned,
    civil::{Time, Weekday},
    fmt::strtime,
    tz::TimeZone,
};

/// A file that lines go to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    turn: Turn,
}

/// When a new file is begun.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    Never,
    /// When a line would bring it to this size in bytes, or over it. Those before become PATH.1, PATH.2 …, this many.
    Size {
        most: u64,
        keep: usize,
    },
    /// When a time has come. The one before becomes PATH.WHEN; this many of them are kept, with 0 all.
    Time {
        every: Every,
        keep: usize,
        utc: bool,
        next: Timestamp,
    },
}

/// What of Python's `when` there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Every {
    /// So many seconds, and how the time is written.
    Seconds(i64, &'static str),
    /// Midnight, so many days later.
    Midnight(i64),
    /// Midnight at the end of that day of the week.
    Week(Weekday),
}

impl Every {
    /// What Python's `when` and `interval` say.
    pub(super) fn parse(when: &str, interval: i64) -> Option<Self> {
        let weekday = |day: &str| Weekday::from_monday_zero_offset(day.parse().ok()?).ok();
        Some(match when.to_uppercase().as_str() {
            "S" => Self::Seconds(interval, "%Y-%m-%d_%H-%M-%S"),
            "M" => Self::Seconds(interval * 60, "%Y-%m-%d_%H-%M"),
            "H" => Self::Seconds(interval * 3600, "%Y-%m-%d_%H"),
            "D" => Self::Seconds(interval * 86400, "%Y-%m-%d"),
            "MIDNIGHT" => Self::Midnight(interval),
            when => Self::Week(weekday(when.strip_prefix('W')?)?),
        })
    }

    /// The first time after `from` at which a new file is begun.
    fn after(self, from: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = from.to_zoned(zone.clone());
        let midnight = |days: i64| {
            let day = local.date().checked_add(days.days()).ok()?;
            Some(day.to_datetime(Time::midnight()).to_zoned(zone.clone()).ok()?.timestamp())
        };
        let next = match self {
            Self::Seconds(seconds, _) => from.checked_add(seconds.seconds()).ok(),
            Self::Midnight(days) => midnight(days),
            Self::Week(day) => midnight(i64::from(local.date().weekday().until(day)) + 1),
        };
        next.unwrap_or(Timestamp::MAX)
    }

    /// How the time is written at which a file that ended at `end` began.
    fn suffix(self, end: Timestamp, zone: &TimeZone) -> String {
        let end = end.to_zoned(zone.clone());
        let (began, format): (Option<Zoned>, _) = match self {
            Self::Seconds(seconds, format) => (end.checked_sub(seconds.seconds()).ok(), format),
            Self::Midnight(days) => (end.checked_sub(days.days()).ok(), "%Y-%m-%d"),
            // Python takes the week's length off.
            Self::Week(_) => (end.checked_sub(7.days()).ok(), "%Y-%m-%d"),
        };
        strtime::format(format, &began.unwrap_or(end)).unwrap_or_default()
    }

    /// How long what [`suffix`](Self::suffix) returns is.
    fn suffix_length(self) -> usize {
        self.suffix(Timestamp::UNIX_EPOCH, &TimeZone::UTC).len()
    }
}

impl LogFile {
    /// Opens it, at its end, or `empty`: but never one that this process has opened before. Nor does its time begin again.
    pub(super) fn open(path: &Path, empty: bool, mut turn: Turn) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let before = opened().get(&path).copied();
        if let Turn::Time { every, utc, next, .. } = &mut turn {
            // A file that is older goes on from when it was written last.
            let written =
                fs::metadata(&path).and_then(|file| file.modified()).unwrap_or_else(|_| SystemTime::now());
            let written = Timestamp::try_from(written).unwrap_or_else(|_| Timestamp::now());
            *next = before.flatten().unwrap_or_else(|| every.after(written, &zone(*utc)));
        }
        if empty && before.is_none() {
            File::create(&path)?;
        }
        let file = Self { file: append(&path)?, path, turn };
        file.note();
        Ok(file)
    }

    /// Remembers that it is open, and when its time comes.
    fn note(&self) {
        let next = if let Turn::Time { next, .. } = self.turn { Some(next) } else { None };
        opened().insert(self.path.clone(), next);
    }

    /// Writes `line`, which has its end, in a new file if it is time for one.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let turned = self.turn_over(line.len() as u64);
        // Better a file that is too large than a line that is lost.
        self.file.write_all(line.as_bytes())?;
        turned
    }

    fn turn_over(&mut self, more: u64) -> io::Result<()> {
        match &mut self.turn {
            Turn::Size { most, keep } if *most > 0 && *keep > 0 => {
                let now = self.file.metadata()?;
                // What is no file, as a terminal, has no size.
                if !now.is_file() || now.len() + more < *most {
                    return Ok(());
                }
                let keep = *keep;
                self.turn_by_number(keep)
            }
            Turn::Time { every, keep, utc, next } if Timestamp::now() >= *next => {
                let zone = zone(*utc);
                let old = beside(&self.path, &every.suffix(*next, &zone));
                *next = every.after(Timestamp::now(), &zone);
                let (every, keep) = (*every, *keep);
                self.note();
                let moved = if self.file.metadata()?.is_file() { moved(&self.path, &old) } else { Ok(()) };
                self.file = append(&self.path)?;
                moved?;
                if keep > 0 { self.remove_all_but(keep, every.suffix_length()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn turn_by_number(&mut self, keep: usize) -> io::Result<()> {
        let numbered = |number: usize| beside(&self.path, &number.to_string());
        // Where somebody has moved the file away, those before it stay where they are.
        let turned = if self.path.exists() {
            (1..keep)
                .rev()
                .try_for_each(|number| moved(&numbered(number), &numbered(number + 1)))
                .and_then(|()| moved(&self.path, &numbered(1)))
        } else {
            Ok(())
        };
        self.file = append(&self.path)?;
        turned
    }

    /// Removes the oldest of the files with a time after their name.
    fn remove_all_but(&self, keep: usize, length: usize) -> io::Result<()> {
        let name = format!("{}.", self.path.file_name().unwrap_or_default().to_string_lossy());
        let is_time = |time: &str| {
            time.len() == length && time.chars().all(|c| c.is_ascii_digit() || c == '-' || c == '_')
        };
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(self.path.parent().unwrap_or(Path::new("/")))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().strip_prefix(&name).is_some_and(is_time) {
                old.push(entry.path());
            }
        }
        old.sort_unstable();
        let most = old.len().saturating_sub(keep);
        // Each on its own: one that cannot go does not keep the others.
        old.into_iter().take(most).map(fs::remove_file).fold(Ok(()), Result::and)
    }
}

/// The files that this process has opened: what it wrote itself it does not empty. With the time at which each is turned
/// over.
fn opened() -> MutexGuard<'static, BTreeMap<PathBuf, Option<Timestamp>>> {
    static OPENED: Mutex<BTreeMap<PathBuf, Option<Timestamp>>> = Mutex::new(BTreeMap::new());
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renames a file, if it is there.
fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn zone(utc: bool) -> TimeZone {
    if utc { TimeZone::UTC } else { TimeZone::system() }
}
